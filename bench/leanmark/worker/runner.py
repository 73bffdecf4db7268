"""How one block is measured, in the process that runs it. Pure timing: no torch, no files."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from leanmark.protocol.messages import BlockTime, Window

Step = Callable[[], None]

MIN_BLOCK_S = 1e-3
"""A block lasts at least this long: a thousand times the resolution of the clock and more."""

_WINDOW = 5
"""Blocks per warm-up window; two windows that agree end the warm-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """``steady`` is false where the time for warming up ended before two windows agreed."""

    step_s: float
    loops: int
    steady: bool


def run_block(step: Step, loops: int) -> BlockTime:
    """Time ``loops`` steps back to back."""
    cpu = time.process_time()
    start = time.perf_counter()
    for _ in range(loops):
        step()
    end = time.perf_counter()
    return BlockTime(start_s=start, wall_s=end - start, cpu_s=time.process_time() - cpu)


def run_samples(step: Step, count: int) -> array[float]:
    """The seconds of each of ``count`` steps [count], back to back: the samples of percentiles.

    One reading of the clock ends a step and begins the next, so each holds the cost of one reading.
    """
    marks = array("d", bytes(8 * (count + 1)))  # nothing is allocated between two steps
    marks[0] = time.perf_counter()
    for index in range(1, count + 1):
        step()
        marks[index] = time.perf_counter()
    return array("d", (end - start for start, end in pairwise(marks)))


def run_window(step: Step, seconds: float) -> Window:
    """Run steps until ``seconds`` have passed; the last one is finished."""
    start = time.perf_counter()
    steps = 0
    while (elapsed := time.perf_counter() - start) < seconds or steps == 0:
        step()
        steps += 1
    return Window(steps=steps, wall_s=elapsed)


def warm_up(step: Step, limit_s: float, block_s: float) -> WarmUp:
    """Run until two successive windows of blocks agree, and size the blocks on the way.

    The block size is found from several blocks, since one early call misjudges the step badly. Two windows
    agree where their medians differ by less than 2 %, or by less than their own scatter.
    """
    target_s = max(block_s, MIN_BLOCK_S)
    deadline = time.perf_counter() + limit_s
    loops = 1
    previous: list[float] = []
    while True:
        current = [run_block(step, loops).wall_s / loops for _ in range(_WINDOW)]
        step_s = median(current)
        fitting = max(1, round(target_s / step_s))
        sized = loops >= fitting // 4  # a quarter of a block is long enough to warm up with
        steady = sized and bool(previous) and _agree(previous, current)
        if steady or time.perf_counter() > deadline:
            return WarmUp(step_s=step_s, loops=fitting, steady=steady)
        previous = current if sized else []
        if not sized:
            loops = min(fitting // 4, 10 * loops)


def _agree(first: list[float], second: list[float]) -> bool:
    difference = abs(median(first) - median(second))
    scatter = median(abs(value - median(second)) for value in second)
    return difference <= max(0.02 * median(second), 2 * scatter)
