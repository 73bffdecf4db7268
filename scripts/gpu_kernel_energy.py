"""Joules per call of each contender, by the board's own counter, the work running from update to update."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gpu_stage import Call, Counter, Stage

from leanmark.errors import MeterError
from leanmark.meters.nvml_energy import GAIN
from leanmark.meters.window import Aligned, measure_aligned

_UNIT_J = 1e-3
_UPDATES = 10
"""In a window, at least: the counter's update is then a small part of it."""


def measure(stage: Stage, replays: Mapping[str, Call], calls: int) -> dict[str, Any]:
    """Of each contender, whose replay is ``calls`` calls; or why there is none.

    Gross: what the board draws when idle is in it. ``uncertainty_j`` comes from where the updates of the
    counter lie; what the sensor itself may be off by is ``gain``, the same for all and not in a ratio.
    """
    counter = stage.counter
    if isinstance(counter, str):
        return {"missing": counter}
    try:
        found = {name: _one(stage, counter, replay) for name, replay in replays.items()}
    except MeterError as error:
        return {"missing": str(error)}
    ours, *others = found
    return {
        "meter": "nvml.total_energy",
        "update_period_s": counter.period_s,
        "gain": GAIN,
        "per_call": {name: per_call(each, calls) for name, each in found.items()},
        "ratios": {name: ratio(found[name], found[ours]) for name in others},
    }


def _one(stage: Stage, counter: Counter, replay: Call) -> Aligned:
    def step_many(count: int) -> None:
        for _ in range(count):
            replay()
        stage.synchronize()

    step_many(1)
    return measure_aligned(
        step_many,
        counter.read,
        unit_j=_UNIT_J,
        period_s=counter.period_s,
        seconds=_UPDATES * counter.period_s,
        clock=time.perf_counter,
    )


def per_call(found: Aligned, calls: int) -> dict[str, Any]:
    """``calls`` calls are a step."""
    done = found.steps * calls
    return {
        "joules": found.joules / done,
        "uncertainty_j": found.uncertainty_j / done,
        "watts": found.joules / found.duration_s,
        "calls": done,
        **{name: value for name, value in asdict(found).items() if name in ("duration_s", "distinct")},
    }


def ratio(library: Aligned, ours: Aligned) -> dict[str, float]:
    """Library / ours, above 1 where ours needs less, with the uncertainties added in quadrature."""
    value = library.joules_per_step / ours.joules_per_step
    relative = math.hypot(library.uncertainty_j / library.joules, ours.uncertainty_j / ours.joules)
    return {"value": value, "uncertainty": value * relative}
