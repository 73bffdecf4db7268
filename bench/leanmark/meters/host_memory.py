"""Peak resident memory of this process, immune to the size of its parent.

``ru_maxrss`` is inherited over fork and exec, so a small child of a large parent reports the parent.
``VmHWM`` belongs to the process and can be reset.

Since Linux 6.2 the kernel adds resident pages up per processor and carries them over in batches, so each
reading can be short by the batches of the processors that the process ran on.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

from leanmark.meters.base import Meter, Reading
from leanmark.record import Provenance

_RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs


def _uncounted_bytes() -> float:
    """What the processors may hold back: ``percpu_counter_batch`` of the kernel's lib/percpu_counter.c."""
    processors = os.cpu_count() or 1
    return float(processors * max(32, 2 * processors) * mmap.PAGESIZE)


class HostMemory(Meter[float]):
    """The high-water mark of resident memory since ``start()``, in bytes."""

    unit = "bytes"
    scope = "process"
    provenance = Provenance.MEASURED_COUNTER
    resolution = _uncounted_bytes()
    min_window_s = 0.0

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc

    def unavailable(self) -> str | None:
        if not (self._proc / "clear_refs").exists():
            return f"{self._proc}/clear_refs does not exist: the peak cannot be reset (needs Linux)"
        return None

    def start(self) -> float:
        (self._proc / "clear_refs").write_text(_RESET_PEAK)
        return time.perf_counter()

    def stop(self, token: float) -> Reading:
        return Reading(value=float(self._field("VmHWM")), duration_s=time.perf_counter() - token)

    def resident_bytes(self) -> int:
        """What is resident now."""
        return self._field("VmRSS")

    def steady(self) -> dict[str, int]:
        """Bytes held between steps, by the metric of the record, as far as the system tells.

        ``pss`` divides each shared page among the processes that have it, ``uss`` leaves shared pages out
        (proc(5), ``smaps_rollup``). The slack is what the allocator kept and gives back when it is asked,
        so asking comes last.
        """
        found = {"steady_memory_bytes": self.resident_bytes(), **self._rollup()}
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)
            found["allocator_slack_bytes"] = max(0, found["steady_memory_bytes"] - self.resident_bytes())
        return found

    def _rollup(self) -> dict[str, int]:
        path = self._proc / "smaps_rollup"  # Linux 4.14
        if not path.exists():
            return {}
        lines = path.read_text().splitlines()
        private = _bytes(lines, "Private_Clean") + _bytes(lines, "Private_Dirty")
        return {"pss_memory_bytes": _bytes(lines, "Pss"), "uss_memory_bytes": private}

    def _field(self, name: str) -> int:
        return _bytes((self._proc / "status").read_text().splitlines(), name)


def _bytes(lines: Iterable[str], name: str) -> int:
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"the kernel's account of the process has no {name}")
