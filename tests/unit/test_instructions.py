from __future__ import annotations

import errno
import os
import platform
import time

import pytest

from leanmark.meters import instructions
from leanmark.meters.instructions import Instructions

_SOFTWARE, _TASK_CLOCK = 1, 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "sudo sysctl kernel.perf_event_paranoid=2"),
        (errno.EPERM, "give this process CAP_PERFMON"),
        (errno.ENOENT, "as in most virtual machines: use callgrind"),
        (errno.EOPNOTSUPP, "as in most virtual machines: use callgrind"),
        (errno.EINVAL, "perf_event_open failed (Invalid argument): use callgrind"),
    ],
)
def test_why_there_is_no_counter_is_said_with_what_to_do(code: int, words: str) -> None:
    assert words in instructions.explain(OSError(code, os.strerror(code)))


def test_an_unknown_processor_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    reason = Instructions().unavailable()
    assert reason is not None
    assert "riscv64" in reason


def test_a_counter_is_opened_read_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own task clock in place of the processor's counter: virtual machines have it too."""
    monkeypatch.setattr(instructions, "_HARDWARE", _SOFTWARE)
    monkeypatch.setattr(instructions, "_INSTRUCTIONS", _TASK_CLOCK)
    monkeypatch.setattr(instructions, "_EXCLUDE_KERNEL", 0)
    meter = Instructions()
    if reason := meter.unavailable():
        pytest.skip(reason)
    token, cpu_s = meter.start(), time.thread_time()
    sum(range(1_000_000))
    cpu_s, reading = time.thread_time() - cpu_s, meter.stop(token)()
    assert cpu_s * 0.9 < reading.value * 1e-9 < reading.duration_s * 1.1


@pytest.mark.skipif(Instructions().unavailable() is not None, reason=str(Instructions().unavailable()))
def test_twice_the_work_is_twice_the_instructions() -> None:
    meter = Instructions()
    counts = []
    for size in (1_000_000, 2_000_000):
        token = meter.start()
        sum(range(size))
        counts.append(meter.stop(token)().value)
    assert counts[1] == pytest.approx(2 * counts[0], rel=0.05)
