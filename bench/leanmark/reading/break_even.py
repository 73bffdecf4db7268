"""After how many inferences a technique has paid back what making its model cost. Pure.

The cost is applying it (training, calibrating), writing it in the form of its backend, and what its first
call takes more than the reference's, where torch.compile works: that is counted once, and falls due again
whenever a process starts. The saving is per sample: the reference's value times (1 - ratio), over the batch.
The interval of the count is that of the costs over that of the saving, ends against ends, with the allowance
for processes not seen; where the ratio's interval reaches 1, there may be no saving at all, and the count has
no end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from leanmark.reading.first_call import Extra, FirstCall
from leanmark.reading.table import Metric, Row
from leanmark.record import Comparison, Cost, Provenance

Quantity = Literal["time", "energy"]
Part = Literal["applied", "built", "first call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds or joules, with their range; ``parts`` sum up to ``value``. ``unknown`` are parts left out."""

    value: float
    low: float
    high: float
    parts: dict[Part, float] = field(default_factory=dict)
    unknown: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """``count`` inferences pay what was ``spent`` back; ``inf`` is never.

    ``count`` is ``None``, with the ``refusal``, where that cannot be said.
    """

    quantity: Quantity
    spent: Spent | None
    count: float | None = None
    low: float | None = None
    high: float | None = None
    refusal: str | None = None


def break_evens(row: Row) -> tuple[BreakEven, ...]:
    """In time and in energy; nothing where a row changes no model, or where it is trained."""
    if row.role != "technique" or row.case.phase != "inference" or row.status != "ok":
        return ()
    return _of(row, "time", row.latency), _of(row, "energy", row.energy)


def _of(row: Row, quantity: Quantity, metric: Metric | None) -> BreakEven:
    compared = metric.comparison if metric else None
    before = metric.reference if metric else None
    found = spent(quantity, row.cost, row.first_call)
    return break_even(quantity, found, compared, before.value if before else None, row.case.batch)


def break_even(
    quantity: Quantity,
    found: Spent | str,
    compared: Comparison | None,
    reference: float | None,
    batch: int,
) -> BreakEven:
    """Of a technique over its reference, which takes ``reference`` seconds or joules for a ``batch``."""
    if isinstance(found, str):
        return BreakEven(quantity=quantity, spent=None, refusal=found)
    if compared is None or reference is None:
        return BreakEven(quantity=quantity, spent=found, refusal="nothing was compared")
    ratio = compared.ratio
    if ratio is None or compared.demoted:
        reason = compared.reason or "the ratio has no interval"
        return BreakEven(quantity=quantity, spent=found, refusal=reason)
    wider = 1 + compared.allowance  # while too few processes were seen
    ratios = (ratio.low / wider, ratio.value, ratio.high * wider)
    saved = [reference * (1 - each) / batch for each in ratios]
    costs = (found.low, found.value, found.high)
    low, count, high = (_times(cost, each) for cost, each in zip(costs, saved, strict=True))
    return BreakEven(quantity=quantity, spent=found, count=count, low=low, high=high)


def spent(quantity: Quantity, cost: Cost | None, first: FirstCall | None) -> Spent | str:
    """What making the model took in all, or why that is not known."""
    if cost is None:
        return "what applying it cost is not known"
    if quantity == "time":
        return _sum(cost.time_s, 0.0, cost.build_s, 0.0, first.time if first else None)
    if cost.energy_j is None:
        return f"not measured: {cost.energy_reason}"
    if cost.energy_provenance is Provenance.ESTIMATED_MODEL:
        return "not measured: there are only estimates of energy, and those repeat the time"
    joules = _sum(
        cost.energy_j,
        cost.energy_uncertainty_j or 0.0,
        cost.build_j,
        cost.build_uncertainty_j or 0.0,
        first.energy if first else None,
    )
    missing: list[Part] = []
    if cost.build_s is not None and cost.build_j is None:
        missing.append("built")
    if first is not None and first.energy is None:
        missing.append("first call")
    return Spent(
        value=joules.value, low=joules.low, high=joules.high, parts=joules.parts, unknown=tuple(missing)
    )


def _sum(
    applied: float, applied_doubt: float, built: float | None, built_doubt: float, first: Extra | None
) -> Spent:
    """Doubts of one meter are added as they are: its gain is in all of them."""
    parts: dict[Part, float] = {"applied": applied}
    if built is not None:
        parts["built"] = built
    if first is not None:
        parts["first call"] = first.value
    value, doubt = sum(parts.values()), applied_doubt + built_doubt
    below, above = (first.value - first.low, first.high - first.value) if first else (0.0, 0.0)
    return Spent(value=value, low=value - doubt - below, high=value + doubt + above, parts=parts)


def _times(cost: float, saved: float) -> float:
    """What costs nothing, since it starts faster than what it replaces, has paid at once."""
    if cost <= 0:
        return 0.0
    return cost / saved if saved > 0 else math.inf
