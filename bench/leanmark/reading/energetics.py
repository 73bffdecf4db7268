"""What one energy measurement says beyond its mean: uncertainty, power, idle power, the net diagnostic. Pure.

Gross energy is the number. Net (less what the idle device would have drawn) is a diagnostic that is stated
only where it means something, named for the idle state it is over, and never clamped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from leanmark.record import Finding, Measurement, Provenance, Series, Summary
from leanmark.statistics import instrument, stats

LEAST_SHARE = 0.2
"""Of the gross: below it, net is the difference of two large numbers."""

DRIFT_SHARE, DRIFT_W = 0.05, 2.0
"""Idle power before and after must agree within either of these."""

_SHARED = {"shared-gpu", "shared-board"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Watts before and after the windows; ``doubt_w`` is the larger uncertainty of the two."""

    before_w: float
    after_w: float
    doubt_w: float

    @property
    def mean_w(self) -> float:
        return (self.before_w + self.after_w) / 2

    @property
    def drifted(self) -> bool:
        apart = abs(self.after_w - self.before_w)
        return apart > max(DRIFT_W, DRIFT_SHARE * self.mean_w)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """Joules per step over the power of the device with the model loaded and nothing to do."""

    value_j: float
    doubt_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Energetics:
    """``doubt_j`` is a half-width: what the meter states, the scatter of the windows, the sensor's gain.

    ``idle`` is by state, ``bare`` or ``context``. Where there is no ``net``, ``net_refusal`` says why. Of an
    estimate only the ``source`` is known.
    """

    source: str | None = None
    doubt_j: float | None = None
    gain: float | None = None
    power_w: float | None = None
    rate_hz: float | None = None
    idle: Mapping[str, Idle] = field(default_factory=dict)
    net: Net | None = None
    net_refusal: str | None = None


def energetics(measurement: Measurement, summary: Summary) -> Energetics | None:
    """Of the energy pass of one case, whose ``energy_j`` comes to ``summary``."""
    series = measurement.find("energy_j")
    if series is None:
        return None
    source = measurement.executed.get("evidence", {}).get("source")
    if series.provenance is Provenance.ESTIMATED_MODEL:
        return Energetics(source=source)
    took = measurement.find("window_step_s")
    step_s = stats.summarize(took).value if took else None
    idle = {
        kind: found for kind in ("bare", "context") if (found := _idle(measurement.find(f"idle_{kind}_w")))
    }
    random_j = _random_j(series, summary)
    net = _net(summary.value, random_j, step_s, idle.get("context"), measurement.findings)
    if isinstance(net, Net):  # the gain of the sensor is in both, and so in their difference
        net = replace(net, doubt_j=math.hypot(net.doubt_j, (series.gain or 0.0) * net.value_j))
    return Energetics(
        source=source,
        rate_hz=measurement.executed.get("request_rate_hz"),
        doubt_j=_doubt_j(series, summary),
        gain=series.gain,
        power_w=summary.value / step_s if step_s else None,
        idle=idle,
        net=net if isinstance(net, Net) else None,
        net_refusal=None if isinstance(net, Net) else net,
    )


def _doubt_j(series: Series, summary: Summary) -> float | None:
    """Everything in quadrature; ``None`` where the meter states nothing at all."""
    if series.gain is None and not instrument.doubt(series):
        return None
    return math.hypot(_random_j(series, summary), (series.gain or 0.0) * summary.value)


def _random_j(series: Series, summary: Summary) -> float:
    interval = summary.interval
    scatter = (interval.high - interval.low) / 2 if interval else 0.0
    return math.hypot(scatter, instrument.doubt(series) * summary.value)


def _idle(series: Series | None) -> Idle | None:
    if series is None or len(series.blocks) < 2:
        return None
    first, *_, last = series.blocks
    doubts = [block.uncertainty or 0.0 for block in (first, last)]
    return Idle(before_w=first.value, after_w=last.value, doubt_w=max(doubts))


def _net(
    gross_j: float,
    doubt_j: float,
    step_s: float | None,
    idle: Idle | None,
    findings: tuple[Finding, ...],
) -> Net | str:
    """Net energy, or why none is stated."""
    if step_s is None or idle is None:
        return "the idle power with the model loaded is not known before and after"
    shared = next((one.message for one in findings if one.code in _SHARED), None)
    if shared is not None:
        return shared
    if idle.drifted:
        return f"idle power drifted from {idle.before_w:.3g} W to {idle.after_w:.3g} W"
    net_j = gross_j - idle.mean_w * step_s
    if net_j < LEAST_SHARE * gross_j:
        share = round(100 * net_j / gross_j)  # whole, since a format would write -0
        return f"it is {share}% of the gross, the difference of two large numbers"
    drift_w = abs(idle.after_w - idle.before_w) / 2
    return Net(value_j=net_j, doubt_j=math.hypot(doubt_j, step_s * math.hypot(idle.doubt_w, drift_w)))
