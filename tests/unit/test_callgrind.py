from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest

from leanmark.errors import UsageError, WorkerDied
from leanmark.machine import callgrind

FILE = "version: 1\nevents: Ir\n\nfn=(1) main\n16 1800\n\ntotals: 1804\n"

SCRIPT = """
import sys
from leanmark.machine import callgrind

def step():
    return sum(range(100))

step()
with callgrind.collecting():
    for _ in range(int(sys.argv[-1])):
        step()
"""

needs_valgrind = pytest.mark.skipif(
    callgrind.unavailable() is not None, reason=callgrind.unavailable() or "it is here"
)


def test_the_total_is_read() -> None:
    assert callgrind.total(FILE) == 1804


def test_a_file_that_was_cut_short_is_not_zero() -> None:
    with pytest.raises(ValueError, match="no complete callgrind file"):
        callgrind.total("version: 1\n")


def test_without_valgrind_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="valgrind is not installed: sudo apt-get install valgrind"):
        callgrind.instructions(Path("any.py"), 1)


def test_outside_callgrind_collecting_changes_nothing() -> None:
    with callgrind.collecting():
        total = sum(range(10))
    assert total == 45


@needs_valgrind
@pytest.mark.slow
def test_twice_the_steps_are_twice_the_instructions(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    once, twice = (callgrind.instructions(script, steps) for steps in (100, 200))
    assert once > 100 * 1000
    assert twice == pytest.approx(2 * once, rel=0.05)


@needs_valgrind
@pytest.mark.slow
def test_a_script_that_counts_nothing_or_fails_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("sum(range(10))")
    with pytest.raises(UsageError, match=r"script\.py counts nothing"):
        callgrind.instructions(script, 1)
    script.write_text("raise OSError('no such thing')")
    with pytest.raises(WorkerDied, match=r"script\.py under callgrind exited with code 1"):
        callgrind.instructions(script, 1)
