"""What the first call of a changed model takes more than that of its reference: compiling, mostly. Pure.

It is paid at every start of a process. The two sides of a difference began in the same replica, on the same
cores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from leanmark.record import Measurement, Provenance, Series, left_out
from leanmark.statistics.stats import CONFIDENCE, MIN_PROCESSES


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """``low`` and ``high`` are a t interval over five processes or more; of fewer, the least and the most."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCall:
    """In seconds and, where a counter was read, in joules; negative where it starts faster."""

    time: Extra
    energy: Extra | None


def first_call(changed: Measurement | None, reference: Measurement | None) -> FirstCall | None:
    """Of the latency pass of two cases; ``None`` where one of them has none."""
    if changed is None or reference is None:
        return None
    time = _extra(changed.find("cold_start_s"), reference.find("cold_start_s"))
    if time is None:
        return None
    energy = None
    if left_out(changed.findings) == left_out(reference.findings):
        energy = _extra(changed.find("cold_start_j"), reference.find("cold_start_j"))
    return FirstCall(time=time, energy=energy)


def _extra(changed: Series | None, reference: Series | None) -> Extra | None:
    if changed is None or reference is None:
        return None
    if Provenance.ESTIMATED_MODEL in (changed.provenance, reference.provenance):
        return None
    ours, theirs = ({block.process: block.value for block in side.blocks} for side in (changed, reference))
    differences = [ours[process] - theirs[process] for process in ours.keys() & theirs.keys()]
    if not differences:
        return None
    value = float(np.mean(differences))
    if len(differences) < MIN_PROCESSES:
        return Extra(value=value, low=min(differences), high=max(differences))
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    half = float(stdtrit(len(differences) - 1, (1 + CONFIDENCE) / 2)) * error
    return Extra(value=value, low=value - half, high=value + half)
