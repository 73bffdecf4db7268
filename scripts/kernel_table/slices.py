"""Slices of calls, timed while all processors are at hand. Linux."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kernel_table.contenders import Call

Places = Mapping[int, set[int]]
"""The cores of a thread."""

ALL_CORES = os.sched_getaffinity(0)
"""That this process may use: read before it pins any thread."""

SETTLE_S = 0.002
"""In which threads fall asleep that still look for more work of the call before."""
RETRY_S = 0.02
LOOK_S = 0.02
"""For which a contender runs to see which of its threads work."""
PROBE_STEPS = 400_000
"""Of the probe of multiply-adds: about 1 ms, long against waking the threads."""
WHOLE = 0.85
"""Of the most that the processors have done together: with less, another user has one of them for now, or two
of them have become one core."""


@dataclass(slots=True, kw_only=True)
class Slices:
    """With the threads that torch has now. Of one, it is CPU time: that of other users does not count.

    Of more it is wall time, with each thread that works on one of ``cores``. A slice is timed once more, for
    ``patience_s`` in all, if a probe just before or after it found less than ``WHOLE`` of
    ``most_flops_per_s``. ``count`` slices were timed, and ``disturbed`` are kept for want of patience.
    """

    cores: Sequence[int]
    most_flops_per_s: float
    patience_s: float
    count: int = 0
    disturbed: int = 0
    _places: dict[Call, Places] = field(default_factory=dict)

    def time_us(self, call: Call, repeats: int) -> float:
        """Microseconds per call, after one that is not timed: caches hold the weights of the one before."""
        if torch.get_num_threads() == 1:
            return _timed_us(call, repeats, time.process_time_ns)
        self.count += 1
        while True:
            began = time.monotonic()
            whole = self._whole()
            self._place(call)
            found = _timed_us(call, repeats, time.perf_counter_ns)
            whole = self._whole() and whole
            if whole or self.patience_s <= 0:
                self.disturbed += not whole
                return found
            time.sleep(RETRY_S)
            self.patience_s -= time.monotonic() - began

    def begin_case(self) -> None:
        """Let go of the contenders so far, and spread torch's threads, for what is timed in making others."""
        self._places.clear()
        if torch.get_num_threads() > 1:
            self._place(_probe)

    def _place(self, call: Call) -> None:
        """Its threads to a core each; every other one may run anywhere."""
        if call not in self._places:
            self._places[call] = places(call, self.cores)
        free(self.cores)
        pin(self._places[call])

    def _whole(self) -> bool:
        time.sleep(SETTLE_S)
        self._place(_probe)
        _probe(PROBE_STEPS // 10)  # wakes the threads
        begin = time.perf_counter()
        done = _probe()
        rate = done / (time.perf_counter() - begin)
        self.most_flops_per_s = max(self.most_flops_per_s, rate)
        return rate >= WHOLE * self.most_flops_per_s


def _probe(steps: int = PROBE_STEPS) -> int:
    done: int = torch.ops.leanmark.multiply_add_ceiling(steps)
    return done


def places(call: Call, cores: Sequence[int]) -> Places:
    """A core for each of the threads that work most in ``call``, which runs for ``LOOK_S`` to see that.

    Some libraries let the caller work beside its pool, others let it wait for the pool. Left alone, threads
    that slept are often woken on one core, and stay there.
    """
    free(cores)
    call()  # starts the threads
    before, end = _spent_ns(), time.monotonic() + LOOK_S
    while time.monotonic() < end:
        call()
    spent = {thread: ns - before.get(thread, 0) for thread, ns in _spent_ns().items()}
    busiest = sorted(spent, key=lambda thread: -spent[thread])[: len(cores)]
    return {thread: {core} for thread, core in zip(sorted(busiest), cores, strict=False)}


def free(cores: Sequence[int]) -> None:
    """All threads of this process to all ``cores``."""
    pin({thread: set(cores) for thread in _spent_ns()})


@contextlib.contextmanager
def on_all_cores() -> Iterator[None]:
    """The calling thread may run anywhere within: some libraries count its cores when they load a model."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(places: Places) -> None:
    """Each of these threads of this process to its cores."""
    for thread, cores in places.items():
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.sched_setaffinity(thread, cores)


def _spent_ns() -> dict[int, int]:
    """By each thread of this process on a core."""
    files = Path("/proc/self/task").glob("*/schedstat")
    return {int(file.parent.name): int(file.read_text().split()[0]) for file in files}


def _timed_us(call: Call, repeats: int, clock_ns: Callable[[], int]) -> float:
    call()
    begin = clock_ns()
    for _ in range(repeats):
        call()
    return (clock_ns() - begin) / repeats / 1e3
