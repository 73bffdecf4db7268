"""What a fake device draws. The energy is an exact integral, so the truth of every window is known."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import floor
from typing import Protocol


class Power(Protocol):
    def joules(self, at_s: float) -> float:
        """The integral of the power from time 0 to ``at_s``; only differences of it mean anything."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    watts: float

    def joules(self, at_s: float) -> float:
        return self.watts * at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareWave:
    """``high_w`` for ``duty`` of each period, then ``low_w``."""

    low_w: float
    high_w: float
    period_s: float
    phase_s: float = 0.0
    duty: float = 0.5

    def joules(self, at_s: float) -> float:
        whole = floor((at_s + self.phase_s) / self.period_s)
        rest_s = at_s + self.phase_s - whole * self.period_s
        high_s = self.duty * self.period_s
        swing = self.high_w - self.low_w
        return self.low_w * at_s + swing * (whole * high_s + min(rest_s, high_s))


class Switched:
    """A load that is switched by hand: ``idle_w`` until told otherwise."""

    def __init__(self, idle_w: float) -> None:
        self._times = [0.0]
        self._watts = [idle_w]
        self._joules = [0.0]

    def switch(self, at_s: float, watts: float) -> None:
        """Draw ``watts`` from ``at_s`` on; times must not go back."""
        if at_s < self._times[-1]:
            raise ValueError(f"power was already switched at {self._times[-1]} s, after {at_s} s")
        self._joules.append(self.joules(at_s))
        self._times.append(at_s)
        self._watts.append(watts)

    def joules(self, at_s: float) -> float:
        last = max(0, bisect_right(self._times, at_s) - 1)
        return self._joules[last] + self._watts[last] * (at_s - self._times[last])


def energy_j(power: Power, start_s: float, stop_s: float) -> float:
    """The truth of a window."""
    return power.joules(stop_s) - power.joules(start_s)
