"""Times calls against one another, in rounds, so that what disturbs the machine disturbs them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

SLICE_NS = 1_000_000
"""How long one call is repeated for in a round, with what is read before it, at least."""

MOST_BESIDE = 32 << 20
"""Bytes that are read between two calls, at most: about a last-level cache."""


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, beside: int = 0, inputs: Sequence[Tensor] = ()
) -> dict[str, float]:
    """Median seconds per call over ``rounds``, forward and backward in turn.

    With ``beside``, so many bytes are read before every call, as the rest of a model is between two calls of
    a layer: weights that a cache would hold by then for this layer alone come from memory again. ``inputs``
    are read after that, as the layer before has just written them. Neither is timed.

    With one thread this is CPU time of the process, which other users of the machine do not count into. The
    clock's own cost, about a microsecond, is in it, for every call alike.
    """
    clock = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    others = torch.ones(min(beside, MOST_BESIDE) // 4)  # of zeros, the system would give one page many times

    def read() -> None:
        for each in (others, *inputs):
            each.sum()

    def timed(call: Callable[[], object], repeats: int) -> float:
        spent = 0
        for _ in range(repeats):
            read()
            begin = clock()
            call()
            spent += clock() - begin
        return spent / repeats

    between = timed(read, 1)
    repeats = {}
    for name, call in calls.items():
        call()  # packs, allocates
        repeats[name] = max(1, round((SLICE_NS + 2 * between) / max(timed(call, 2) + between, 100.0)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            found[name].append(timed(calls[name], repeats[name]))
    return {name: median(times) / 1e9 for name, times in found.items()}
