"""Instructions this thread executes outside the kernel, from the processor's own counter.

Virtual machines often have none, and ``kernel.perf_event_paranoid`` may forbid it.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from functools import partial

from leanmark.meters.base import Meter, Reading, Stopped
from leanmark.meters.perf_event import PerfEvent
from leanmark.record import Provenance

_HARDWARE, _INSTRUCTIONS = 0, 1
_THIS_THREAD, _ANY_CORE = 0, -1
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6


@dataclass(frozen=True, slots=True)
class Counting:
    counter: PerfEvent
    start_s: float


class Instructions(Meter[Counting]):
    """Instructions of the calling thread, and of threads it starts after ``start()``."""

    unit = "instructions"
    scope = "process"
    provenance = Provenance.MEASURED_COUNTER
    resolution = 1.0
    min_window_s = 0.0

    def unavailable(self) -> str | None:
        try:
            _open().close()
        except OSError as error:
            return explain(error)
        return None

    def start(self) -> Counting:
        return Counting(_open(), time.perf_counter())

    def stop(self, token: Counting) -> Stopped:
        value = token.counter.read()
        duration_s = time.perf_counter() - token.start_s
        token.counter.close()
        return partial(Reading, value=value, duration_s=duration_s)


def explain(error: OSError) -> str:
    """Why the counter cannot be opened, and what to do about it."""
    if isinstance(error, PermissionError):
        return (
            "the system forbids counting instructions: "
            "sudo sysctl kernel.perf_event_paranoid=2, or give this process CAP_PERFMON"
        )
    if error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
        return "this processor shows no counter of instructions, as in most virtual machines: use callgrind"
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"perf_event_open failed ({reason}): use callgrind"


def _open() -> PerfEvent:
    flags = _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
    return PerfEvent(_HARDWARE, _INSTRUCTIONS, _ANY_CORE, process=_THIS_THREAD, flags=flags)
