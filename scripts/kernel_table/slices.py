"""Slices of calls, timed while all processors are at hand. Linux."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kernel_table.contenders import Call

SETTLE_S = 0.002
"""In which threads fall asleep that still look for more work of the call before."""
RETRY_S = 0.02
PROBE_STEPS = 400_000
"""Of the probe of multiply-adds: about 1 ms, long against waking the threads."""
WHOLE = 0.85
"""Of the most that the processors have done together: with less, another user has one of them for now, or two
of them have become one core."""


@dataclass(slots=True, kw_only=True)
class Slices:
    """With the threads that torch has now. Of one, it is CPU time: that of other users does not count.

    Of more it is wall time, with each thread of a pool on one of ``cores``. A slice is timed once more, for
    ``patience_s`` in all, if a probe just before or after it found less than ``WHOLE`` of
    ``most_flops_per_s``. ``count`` slices were timed, and ``disturbed`` are kept for want of patience.
    """

    cores: Sequence[int]
    most_flops_per_s: float
    patience_s: float
    count: int = 0
    disturbed: int = 0

    def time_us(self, call: Call, repeats: int) -> float:
        """Microseconds per call, after one that is not timed: caches hold the weights of the one before."""
        if torch.get_num_threads() == 1:
            return _timed_us(call, repeats, time.process_time_ns)
        self.count += 1
        spread_threads(self.cores)
        while True:
            began = time.monotonic()
            whole = self._whole()
            found = _timed_us(call, repeats, time.perf_counter_ns)
            whole = self._whole() and whole
            if whole or self.patience_s <= 0:
                self.disturbed += not whole
                return found
            time.sleep(RETRY_S)
            self.patience_s -= time.monotonic() - began

    def _whole(self) -> bool:
        time.sleep(SETTLE_S)
        torch.ops.leanmark.multiply_add_ceiling(PROBE_STEPS // 10)  # wakes the threads
        begin = time.perf_counter()
        done = torch.ops.leanmark.multiply_add_ceiling(PROBE_STEPS)
        rate = done / (time.perf_counter() - begin)
        self.most_flops_per_s = max(self.most_flops_per_s, rate)
        return rate >= WHOLE * self.most_flops_per_s


def spread_threads(cores: Sequence[int]) -> None:
    """The calling thread on the first of ``cores``, every other one on one of the rest, in turns.

    Left alone, threads that slept are often woken on one core, and stay there.
    """
    first, *rest = cores
    os.sched_setaffinity(0, {first})
    threads = {int(each.name) for each in Path("/proc/self/task").iterdir()} - {threading.get_native_id()}
    for index, thread in enumerate(sorted(threads)):
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(thread, {rest[index % len(rest)]})


def _timed_us(call: Call, repeats: int, clock_ns: Callable[[], int]) -> float:
    call()
    begin = clock_ns()
    for _ in range(repeats):
        call()
    return (clock_ns() - begin) / repeats / 1e3
