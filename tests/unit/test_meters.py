from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leanmark.meters.codecarbon import CodeCarbon
from leanmark.meters.cpu_time import CpuTime
from leanmark.meters.host_memory import HostMemory
from leanmark.meters.wall import Wall
from leanmark.record import Provenance

MEBIBYTE = 2**20


@pytest.mark.skipif(HostMemory().unavailable() is not None, reason=str(HostMemory().unavailable()))
def test_the_peak_counts_what_was_freed_since_and_forgets_what_was_before() -> None:
    script = (  # in a process of its own: garbage collected meanwhile would shrink this one
        "from leanmark.meters.host_memory import HostMemory\n"
        "early = bytearray(b'x') * (512 << 20)\n"
        "del early\n"
        "meter = HostMemory()\n"
        "token = meter.start()\n"
        "before = meter.resident_bytes()\n"
        "block = bytearray(b'x') * (256 << 20)\n"
        "del block\n"
        "print(int(meter.stop(token)().value) - before)\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(printed.stdout) == pytest.approx(256 * MEBIBYTE, abs=2 * HostMemory.resolution + MEBIBYTE)


@pytest.mark.skipif(HostMemory().unavailable() is not None, reason=str(HostMemory().unavailable()))
def test_a_small_child_of_a_large_parent_is_small() -> None:
    large = bytearray(b"x") * (200 * MEBIBYTE)
    script = (
        "from leanmark.meters.host_memory import HostMemory\n"
        "meter = HostMemory()\n"
        "print(int(meter.stop(meter.start())().value))\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(printed.stdout) < 100 * MEBIBYTE < len(large)


def test_a_system_without_a_resettable_peak_is_told_so(tmp_path: Path) -> None:
    reason = HostMemory(tmp_path).unavailable()
    assert reason is not None
    assert "needs Linux" in reason


def test_clocks_move_forward() -> None:
    wall, cpu = Wall(), CpuTime()
    tokens = wall.start(), cpu.start()
    sum(range(100_000))
    assert wall.stop(tokens[0])().value > 0
    assert cpu.stop(tokens[1])().value > 0


def test_codecarbon_gives_an_estimate_and_nothing_else(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODECARBON_PUE", "50")
    monkeypatch.setenv("codecarbon_force_ram_power", "30000")  # it looks at the name in any case
    configuration = tmp_path / ".codecarbon.config"
    configuration.write_text("[codecarbon]\nforce_cpu_power = 50000\n")
    meter = CodeCarbon()
    assert meter.unavailable() is None
    token = meter.start()
    sum(range(3_000_000))
    reading = meter.stop(token)()
    meter.close()
    assert meter.provenance is Provenance.ESTIMATED_MODEL
    # codecarbon's model puts any machine without counters between a few watts and a few hundred
    assert 1.0 < reading.value / reading.duration_s < 2000.0
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [configuration]
