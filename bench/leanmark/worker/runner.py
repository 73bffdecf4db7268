"""How one block is measured, in the process that runs it. Pure timing: no torch, no files.

A device that is behind its host is waited for before a clock is read, here and nowhere else: no step, meter
or backend does it.
"""

from __future__ import annotations

import math
import time
from array import array
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from leanmark.devices.base import Accelerator
from leanmark.devices.base import Step as Step
from leanmark.protocol.messages import BlockTime, Window
from leanmark.worker import plausible

HOST = Accelerator()
"""The processor itself, which is never behind."""

MIN_BLOCK_S = 1e-3
"""A block lasts at least this long: a thousand times the resolution of the clock and more."""

_WINDOW, _SLOW_WINDOW = 5, 3
"""Blocks per warm-up window, fewer where one takes half of the time. Two windows that agree end it."""

_COMPARISONS = 2
"""Of windows, before the time for warming up can end it."""

_DEVICE_STEPS, _LOOKS = 8, 3
"""At most so many steps of a block are run again for the device's own time."""

_QUEUED_S = 0.02
"""About so much work is asked of a device before it is waited for: waiting after each step would idle it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """``steady`` is false where the time for warming up ended before two windows agreed."""

    step_s: float
    loops: int
    steady: bool


def run_block(step: Step, loops: int, device: Accelerator = HOST) -> BlockTime:
    """Time ``loops`` steps back to back, until the device has done the last of them."""
    device.synchronize()
    cpu = time.process_time()
    start = time.perf_counter()
    for _ in range(loops):
        step()
    asked = time.perf_counter()
    device.synchronize()
    end = time.perf_counter()
    timed = BlockTime(
        start_s=start,
        wall_s=end - start,
        cpu_s=time.process_time() - cpu,
        host_s=asked - start,
    )
    return plausible.block(timed, loops)


def with_device_times(step: Step, loops: int, block: BlockTime, device: Accelerator) -> BlockTime:
    """``block`` with the device's own seconds per step, hot and after its cache was emptied.

    On a processor they are ``None``. Hot steps follow one another, as in the block. The cold one begins
    after the flush has ended: both are in one queue, and the event between them is in it too.
    """
    few = min(loops, _DEVICE_STEPS)
    host_s = block.host_s / loops
    timed = block
    for _ in range(_LOOKS):
        hot_s = device.busy_s(step, few, host_s)
        if hot_s is None:
            return block
        timed = replace(block, device_s=hot_s)
        if plausible.fits_wall(timed, loops):
            break  # else this thread may have been put aside while it queued the steps
    device.flush_cache()
    cold_s = device.busy_s(step, 1, host_s)
    return plausible.on_device(replace(timed, cold_device_s=cold_s), loops)


def run_samples(step: Step, count: int, device: Accelerator = HOST) -> array[float]:
    """The seconds of each of ``count`` steps [count], each waited for: the samples of percentiles.

    One reading of the clock ends a step and begins the next, so each holds the cost of one reading.
    """
    marks = array("d", bytes(8 * (count + 1)))  # nothing is allocated between two steps
    device.synchronize()
    marks[0] = time.perf_counter()
    for index in range(1, count + 1):
        step()
        device.synchronize()
        marks[index] = time.perf_counter()
    taken = array("d", (end - start for start, end in pairwise(marks)))
    plausible.samples(taken)
    return taken


def run_window(step: Step, seconds: float, device: Accelerator = HOST) -> Window:
    """Run steps until ``seconds`` have passed; the last one is finished.

    A device is waited for now and then, or the host would ask for far more than the seconds hold.
    """
    device.synchronize()
    start = time.perf_counter()
    steps, queued, elapsed = 0, 1, 0.0
    while elapsed < seconds or steps == 0:
        for _ in range(queued):
            step()
        device.synchronize()
        before, elapsed = elapsed, time.perf_counter() - start
        steps += queued
        if device.queues and elapsed - before < _QUEUED_S:
            queued *= 2
    return Window(steps=steps, wall_s=plausible.seconds(elapsed, f"a window of {seconds:g} s"))


def run_paced(step: Step, seconds: float, rate_hz: float, device: Accelerator = HOST) -> Window:
    """Begin a step at every tick of ``rate_hz`` for ``seconds`` and sleep to the next.

    The window is the whole ticks in ``seconds``, at least one; what is late begins as soon as it can, and
    what has not begun by the end of the window is not done.
    """
    ticks = max(1, math.floor(seconds * rate_hz))
    start = time.perf_counter()
    end = start + ticks / rate_hz
    steps = 0
    while steps < ticks and time.perf_counter() < end:
        step()
        device.synchronize()
        steps += 1
        _sleep_until(start + steps / rate_hz)
    _sleep_until(end)
    return Window(steps=steps, wall_s=time.perf_counter() - start)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.perf_counter()))


def warm_up(step: Step, limit_s: float, block_s: float, device: Accelerator = HOST) -> WarmUp:
    """Run until two successive windows of blocks agree, and size the blocks on the way.

    The block size is found from several blocks, since one early call misjudges the step badly, and from the
    fastest of them: what disturbs one variant's warming up must not make its blocks shorter than those of its
    rivals, for a busy machine would interrupt them less often. Two windows agree where their medians differ
    by less than 2 %, or by less than their own scatter. Some are compared even where that takes longer than
    ``limit_s``, or no slow step could ever be found steady.
    """
    target_s = max(block_s, MIN_BLOCK_S)
    deadline = time.perf_counter() + limit_s
    loops, compared = 1, 0
    previous: list[float] = []
    while True:
        current = [run_block(step, loops, device).wall_s / loops]
        window = _SLOW_WINDOW if current[0] * loops > limit_s / 2 else _WINDOW
        current += [run_block(step, loops, device).wall_s / loops for _ in range(window - 1)]
        step_s = median(current)
        fitting = max(1, round(target_s / min(current)))
        sized = loops >= fitting // 4  # a quarter of a block is long enough to warm up with
        steady = sized and bool(previous) and _agree(previous, current)
        compared += bool(previous)
        late = time.perf_counter() > deadline and (compared >= _COMPARISONS or not sized)
        if steady or late:
            return WarmUp(step_s=step_s, loops=fitting, steady=steady)
        previous = current if sized else []
        if not sized:
            loops = min(fitting // 4, 10 * loops)


def _agree(first: list[float], second: list[float]) -> bool:
    difference = abs(median(first) - median(second))
    scatter = median(abs(value - median(second)) for value in second)
    return difference <= max(0.02 * median(second), 2 * scatter)
