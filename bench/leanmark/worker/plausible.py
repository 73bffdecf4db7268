"""Is what was timed and computed possible at all? Where it is not, the case is INVALID, with the reason."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from leanmark.errors import Implausible
from leanmark.models.fidelity import EXACT, relative_error
from leanmark.protocol.messages import BlockTime

if TYPE_CHECKING:
    from leanmark.backends.base import Array, Executable

IDLE_S = 0.005
"""How long a process that has nothing to do is watched."""

BUSY_SHARE = 0.2
"""Of that time; an idle interpreter uses a few microseconds to fall asleep and wake up."""

_LOOKS = 3
_REPEATED = 8
_SLACK, _SLACK_S = 2.0, 50e-6
"""How much longer than the wall clock a device may say that a step took: its events have a cost too."""


def block(timed: BlockTime, loops: int) -> BlockTime:
    """``timed``, where its times can be.

    Raises:
        Implausible: time stood still, ran backwards or is no number.
    """
    seconds(timed.wall_s, f"a block of {loops} steps")
    if not timed.cpu_s >= 0:
        raise Implausible(f"the CPU clock gave {timed.cpu_s:g} s for a block of {loops} steps: it is broken")
    return timed


def seconds(value: float, what: str) -> float:
    """``value``, where time has passed.

    Raises:
        Implausible: time stood still, ran backwards or is no number.
    """
    if not 0 < value < math.inf:
        raise Implausible(f"the clock gave {value:g} s for {what}: it is broken")
    return value


def samples(values: Iterable[float]) -> None:
    """Single steps may be below the resolution of the clock, but not negative.

    Raises:
        Implausible: one is negative or no number.
    """
    for value in values:
        if not 0 <= value < math.inf:
            raise Implausible(f"the clock gave {value:g} s for a step: it is broken")


def on_device(timed: BlockTime, loops: int) -> BlockTime:
    """``timed``, where the wall clock saw at least what the device says it worked.

    Raises:
        Implausible: the device worked much longer than the steps seemed to take.
    """
    if not fits_wall(timed, loops):
        step_s = timed.wall_s / loops
        raise Implausible(
            f"the device worked {timed.device_s:.3g} s on a step that seemed to take {step_s:.3g} s: "
            "steps return before their work is done, and nothing waits for it"
        )
    return timed


def fits_wall(timed: BlockTime, loops: int) -> bool:
    """Whether the device's time of a step is within what the wall clock saw."""
    return timed.device_s is None or timed.device_s <= _SLACK * timed.wall_s / loops + _SLACK_S


def repeatable(executable: Executable, inputs: Array) -> None:
    """The same inputs have the same outputs.

    Raises:
        Implausible: two calls differ by more than rounding does.
    """
    few = inputs[:_REPEATED]
    first, second = executable.predict(few), executable.predict(few)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return  # a fault of another kind, told where outputs are compared to the reference
    error = relative_error(second, first)
    if error > EXACT:
        raise Implausible(
            f"the outputs of two calls on the same inputs differ by {error:.2g}: the model is not "
            "deterministic (dropout that stays on, random numbers in forward), so its quality is not either"
        )


def idle() -> None:
    """With no step running, the process does nothing: asked of one with a single thread, after its steps.

    Raises:
        Implausible: it goes on working, so steps return before their work is done.
    """
    for _ in range(_LOOKS):
        before = time.process_time()
        time.sleep(IDLE_S)
        used = time.process_time() - before
        if used <= BUSY_SHARE * IDLE_S:  # not of the time that passed: others may have had the core
            return
    raise Implausible(
        f"the process used {used * 1e3:.1f} ms of CPU in {IDLE_S * 1e3:g} ms without a step: steps return "
        "before their work is done, so their times are too short"
    )
