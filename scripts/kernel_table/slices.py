"""Slices of calls, timed while all processors are at hand. Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kernel_table.contenders import Call

ALL_CORES = os.sched_getaffinity(0)
"""That this process may use: read before it pins any thread."""

SETTLE_S = 0.002
"""In which threads fall asleep that still look for more work of the call before."""
RETRY_S = 0.02
LOOK_S = 0.02
"""For which a contender runs to see which of its threads work."""
PROBE_STEPS = 350_000
"""Of the probe of additions: about 0.5 ms, long against waking the threads."""
CALIBRATION_S = 0.3
"""In which the most is found that the processors can do."""
WHOLE = 0.9
"""Of the most that the processors have done together: with less, another user has or shares a core of theirs
for now, or two of them have become one core."""


@dataclass(slots=True, kw_only=True)
class Slices:
    """With the threads that torch has now. Of one, it is CPU time: that of other users does not count.

    Of more it is wall time. Each thread that works has one of ``cores``, and who shares that slows it down.
    So where a probe just before or after a slice found less than ``WHOLE`` of ``most_adds_per_s``, the slice
    waits or is timed once more, for ``patience_s`` in all, and moves to other cores if there are any.
    ``count`` slices were timed, and ``disturbed`` without that for want of patience.
    """

    cores: list[int]
    most_adds_per_s: float
    patience_s: float
    count: int = 0
    disturbed: int = 0
    _undisturbed: bool = False
    _workers: dict[Call, Sequence[int]] = field(default_factory=dict)

    def time_us(self, call: Call, repeats: int) -> float:
        """Microseconds per call, after one that is not timed: caches hold the weights of the one before."""
        self.count += 1
        while self.patience_s > 0:
            began = time.monotonic()
            if not self._undisturbed:
                self._probe()
            if self._undisturbed:
                found = self._timed_us(call, repeats)
                if self._probe():
                    return found
            time.sleep(RETRY_S)
            self.patience_s -= time.monotonic() - began
        self.disturbed += 1
        return self._timed_us(call, repeats)

    def calibrate(self) -> None:
        """Find the most that the processors can do, which may be more than was known."""
        end = time.monotonic() + CALIBRATION_S
        while time.monotonic() < end:
            self._probe()

    def begin_case(self) -> None:
        """Let go of the contenders so far, and spread torch's threads, for what is timed in making others."""
        self._undisturbed = False
        self._workers.clear()
        self._place(_add)

    def _timed_us(self, call: Call, repeats: int) -> float:
        self._place(call)
        clock_ns = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
        call()
        begin = clock_ns()
        for _ in range(repeats):
            call()
        return (clock_ns() - begin) / repeats / 1e3

    def _place(self, call: Call) -> None:
        if call not in self._workers:
            self._workers[call] = workers(call, torch.get_num_threads(), self.cores)
        place(self._workers[call], self.cores)

    def _probe(self) -> bool:
        """Whether the processors were all at hand for the slice before. Others may be for the next."""
        before = self._whole()
        threads = torch.get_num_threads()
        for _ in range(len(self.cores) // threads - 1):
            if self._undisturbed:
                break
            self.cores = self.cores[threads:] + self.cores[:threads]
            self._whole()
        return before

    def _whole(self) -> bool:
        time.sleep(SETTLE_S)
        self._place(_add)
        _add(PROBE_STEPS // 10)  # wakes the threads
        begin = time.perf_counter()
        done = _add()
        rate = done / (time.perf_counter() - begin)
        self.most_adds_per_s = max(self.most_adds_per_s, rate)
        self._undisturbed = rate >= WHOLE * self.most_adds_per_s
        return self._undisturbed


def _add(steps: int = PROBE_STEPS) -> int:
    done: int = torch.ops.leanmark.add_ceiling(steps)
    return done


def workers(call: Call, count: int, cores: Sequence[int]) -> Sequence[int]:
    """The threads that work most in ``call``, which runs for ``LOOK_S`` on any of ``cores`` to see that.

    Some libraries let the caller work beside its pool, others let it wait for the pool.
    """
    place((), cores)
    call()  # starts the threads
    before, end = _spent_ns(), time.monotonic() + LOOK_S
    while time.monotonic() < end:
        call()
    spent = {thread: ns - before.get(thread, 0) for thread, ns in _spent_ns().items()}
    return sorted(sorted(spent, key=lambda thread: -spent[thread])[:count])


def place(threads: Sequence[int], cores: Sequence[int]) -> None:
    """These threads of this process to the first of ``cores``, one each; every other one to any of them.

    Left alone, threads that slept are often woken on one core, and stay there.
    """
    own = {thread: {core} for thread, core in zip(threads, cores, strict=False)}
    for thread in _spent_ns():
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(thread, own.get(thread, set(cores)))


@contextlib.contextmanager
def on_all_cores() -> Iterator[None]:
    """The calling thread may run anywhere within: some libraries count its cores when they load a model."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _spent_ns() -> dict[int, int]:
    """By each thread of this process on a core."""
    files = Path("/proc/self/task").glob("*/schedstat")
    return {int(file.parent.name): int(file.read_text().split()[0]) for file in files}
