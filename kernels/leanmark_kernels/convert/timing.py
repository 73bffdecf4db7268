"""Times calls against one another, in rounds, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch

SLICE_NS = 1_000_000
"""How long one call is repeated for, at least: long against the clock's own cost."""


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds per call over ``rounds``, forward and backward in turn.

    With one thread this is CPU time of the process, which other users of the machine do not count into.
    """
    clock = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns

    def timed(call: Callable[[], object], repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            call()
        return (clock() - begin) / repeats

    repeats = {}
    for name, call in calls.items():
        call()  # packs, allocates
        repeats[name] = max(1, round(SLICE_NS / max(timed(call, 2), 100.0)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(timed(calls[name], repeats[name]))
    return {name: median(times) / 1e9 for name, times in found.items()}
