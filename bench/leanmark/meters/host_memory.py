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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from leanmark.meters.base import Meter, Reading, Stopped
from leanmark.record import Provenance

_RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs


def _uncounted_bytes() -> float:
    """What the processors may hold back: ``percpu_counter_batch`` of the kernel's lib/percpu_counter.c."""
    processors = os.cpu_count() or 1
    return float(processors * max(32, 2 * processors) * mmap.PAGESIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Bytes of a process that are resident, and of these its private ones and its share of all (proc(5)).

    ``None`` before Linux 4.14, which does not tell them apart.
    """

    resident: int = 0
    private: int | None = None
    shared_out: int | None = None

    @classmethod
    def read(cls, account: str) -> Self:
        """From the text of ``/proc/pid/status`` and, where there is one, of ``smaps_rollup``.

        Raises:
            OSError: it does not say what is resident.
        """
        resident = _bytes(account, "VmRSS")
        if resident is None:
            raise OSError("the kernel's account of the process has no VmRSS")
        clean, dirty = _bytes(account, "Private_Clean"), _bytes(account, "Private_Dirty")
        return cls(
            resident=resident,
            private=None if clean is None or dirty is None else clean + dirty,
            shared_out=_bytes(account, "Pss"),
        )

    def less(self, other: Held) -> Held:
        return Held(
            resident=self.resident - other.resident,
            private=_difference(self.private, other.private),
            shared_out=_difference(self.shared_out, other.shared_out),
        )


class HostMemory(Meter[float]):
    """The high-water mark of resident memory since ``start()``, in bytes, less what is leanmark's ``own``."""

    unit = "bytes"
    scope = "process"
    provenance = Provenance.MEASURED_COUNTER
    resolution = _uncounted_bytes()
    min_window_s = 0.0

    def __init__(self, proc: Path = Path("/proc/self"), own: Held = Held()) -> None:
        self._proc = proc
        self._own = own

    def unavailable(self) -> str | None:
        if not (self._proc / "clear_refs").exists():
            return f"{self._proc}/clear_refs does not exist: the peak cannot be reset (needs Linux)"
        return None

    def start(self) -> float:
        (self._proc / "clear_refs").write_text(_RESET_PEAK)
        return time.perf_counter()

    def stop(self, token: float) -> Stopped:
        peak = _bytes((self._proc / "status").read_text(), "VmHWM")
        if peak is None:
            raise OSError("the kernel's account of the process has no VmHWM")
        return partial(
            Reading, value=float(peak - self._own.resident), duration_s=time.perf_counter() - token
        )

    def resident_bytes(self) -> int:
        """What is resident now."""
        return self.held().resident

    def held(self) -> Held:
        """What is held now."""
        files = (self._proc / name for name in ("status", "smaps_rollup"))
        account = "".join(file.read_text() for file in files if file.exists())
        return Held.read(account).less(self._own)

    def steady(self) -> dict[str, int]:
        """Bytes held between steps, by the metric of the record, as far as the system tells.

        ``pss`` divides each shared page among the processes that have it, ``uss`` leaves shared pages out.
        The slack is what the allocator kept and gives back when it is asked, so asking comes last.
        """
        held = self.held()
        found = {
            "steady_memory_bytes": held.resident,
            "pss_memory_bytes": held.shared_out,
            "uss_memory_bytes": held.private,
        }
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
        if trim is not None:
            trim(0)
            found["allocator_slack_bytes"] = max(0, held.resident - self.resident_bytes())
        return {metric: value for metric, value in found.items() if value is not None}


def _difference(whole: int | None, part: int | None) -> int | None:
    return None if whole is None else whole - (part or 0)


def _bytes(account: str, name: str) -> int | None:
    for line in account.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
