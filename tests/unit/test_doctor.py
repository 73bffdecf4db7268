from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import doctor
from leanmark.doctor import Diagnosis
from leanmark.machine import core_speed
from leanmark.measuring import environment
from leanmark.record import Environment

QUIET = {
    "governor": "performance",
    "boost": "0",
    "cpu_pressure_avg10": 0.3,
    "load_1min": 0.1,
    "virtual_machine": False,
}


@pytest.fixture(autouse=True)
def equal_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_speed, "of_each_core", lambda seconds: {0: 1.3e9, 1: 1.25e9})


def examined(tmp_path: Path, **conditions: object) -> dict[str, Diagnosis]:
    here: Environment = replace(
        environment.collect(),
        machine={"cores_allowed": 4},
        conditions={**QUIET, **conditions},  # type: ignore[dict-item]
    )
    return {diagnosis.subject: diagnosis for diagnosis in doctor.examine(here, tmp_path)}


def test_a_quiet_machine_is_fine(tmp_path: Path) -> None:
    found = examined(tmp_path)
    fine = (
        "frequency governor",
        "boost",
        "waiting for cores",
        "load",
        "virtual machine",
        "speed of the cores",
    )
    assert [found[subject].level for subject in fine] == ["ok"] * 6


@pytest.mark.parametrize(
    ("condition", "value", "subject", "advice"),
    [
        ("governor", "powersave", "frequency governor", "cpupower"),
        ("boost", "1", "boost", "cpufreq/boost"),
        ("cpu_pressure_avg10", 80.0, "waiting for cores", "stop what else"),
        ("load_1min", 3.5, "load", "idle"),
        ("virtual_machine", True, "virtual machine", "ratios"),
    ],
)
def test_each_disturbance_is_named_with_what_to_do(
    tmp_path: Path, condition: str, value: object, subject: str, advice: str
) -> None:
    diagnosis = examined(tmp_path, **{condition: value})[subject]
    assert diagnosis.level == "warn"
    assert advice in diagnosis.advice


@pytest.mark.parametrize("condition", list(QUIET))
def test_what_cannot_be_read_is_unknown_and_not_fine(tmp_path: Path, condition: str) -> None:
    levels = [diagnosis.level for diagnosis in examined(tmp_path, **{condition: None}).values()]
    assert "unknown" in levels[:5]


def test_a_core_that_is_slowed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_speed, "of_each_core", lambda seconds: {0: 0.9e9, 1: 1.3e9, 2: 1.2e9})
    found = examined(tmp_path)["speed of the cores"]
    assert (found.level, found.message) == (
        "warn",
        "of the fastest one's, at hashing for 1 s, core 0 has 69%",
    )
    assert "taskset" in found.advice


def test_cores_that_cannot_be_chosen_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_speed, "of_each_core", lambda seconds: {})
    assert examined(tmp_path)["speed of the cores"].level == "unknown"


def test_a_machine_without_counters_is_told_so(tmp_path: Path) -> None:
    diagnosis = examined(tmp_path)["energy of the processor"]
    assert diagnosis.level == "warn"
    assert "no intel-rapl zone" in diagnosis.message


def test_an_unreadable_counter_says_how_to_grant_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("1")

    def refuse(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)  # tests may run as root, whom no mode stops
    diagnosis = doctor._processor_energy(tmp_path)
    whole = f"{tmp_path}/sys/class/powercap/intel-rapl*/energy_uj"  # of every package, and its memory
    assert diagnosis.advice == f"until the next boot: sudo chmod a+r {whole}"


def test_a_readable_counter_is_fine(tmp_path: Path) -> None:
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.parent.mkdir(parents=True)
    counter.write_text("1")
    diagnosis = doctor._processor_energy(tmp_path)
    assert (diagnosis.level, "intel-rapl:0" in diagnosis.message) == ("ok", True)
