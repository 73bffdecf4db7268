from __future__ import annotations

from pathlib import Path

import pytest

from leanmark.devices.cpu import Cpu
from leanmark.measuring import environment

CPUINFO = """processor : 0
vendor_id : AuthenticAMD
cpu family : 25
model : 1
model name : AMD EPYC 7763 64-Core Processor
flags : fpu avx2 fma avx512_vnni hypervisor

processor : 1
model name : another
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": "MemTotal:       24665620 kB\n",
        "proc/stat": "cpu  1 2 3 4 5 6 7 88 9 10\n",
        "proc/pressure/cpu": "some avg10=12.50 avg60=1.00 avg300=0.10 total=1\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3200000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_machine_is_described_by_what_decides_its_speed(root: Path) -> None:
    described = Cpu(root / "proc").describe()
    assert described["cpu"] == "AMD EPYC 7763 64-Core Processor"
    assert (described["cpu_family"], described["cpu_model"]) == ("25", "1")
    assert described["instruction_sets"] == "avx2 fma avx512_vnni"
    assert described["memory_gib"] == 24


def test_conditions_are_read_and_what_is_absent_is_none(root: Path) -> None:
    found = environment.conditions(root)
    assert found["governor"] == "powersave"
    assert found["frequency_khz"] == 3_200_000
    assert found["cpu_pressure_avg10"] == 12.5
    assert found["steal_ticks"] == 88
    assert found["virtual_machine"] is True
    assert found["boost"] is None
    assert found["memory_pressure_avg10"] is None


def test_conditions_change_without_changing_the_identity(root: Path) -> None:
    before = environment.collect(root)
    (root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").write_text("performance\n")
    after = environment.collect(root)
    assert before.conditions != after.conditions
    assert (before.machine_id, before.software_id) == (after.machine_id, after.software_id)


def test_versions_of_what_decides_the_speed_are_recorded() -> None:
    versions = environment.software()
    assert versions["numpy"]
    assert versions["python"]


def test_a_folder_outside_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.commit(tmp_path) is None
