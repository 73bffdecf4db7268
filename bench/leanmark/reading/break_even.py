"""After how many inferences a technique has paid back what applying it cost. Pure.

The saving is per sample: the reference's value times (1 - ratio), over the batch. The ratio's interval gives
the interval of the count, with the allowance for processes not seen; where it reaches 1, there may be no
saving at all, and the count has no end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from leanmark.reading.tabulate import Metric, Row
from leanmark.record import Comparison, Cost, Provenance

Quantity = Literal["time", "energy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """``count`` inferences pay ``cost`` back (seconds or joules); ``inf`` is never.

    ``count`` is ``None``, with the ``refusal``, where that cannot be said.
    """

    quantity: Quantity
    cost: float | None
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
    return break_even(quantity, row.cost, compared, before.value if before else None, row.case.batch)


def break_even(
    quantity: Quantity, cost: Cost | None, compared: Comparison | None, reference: float | None, batch: int
) -> BreakEven:
    """Of a technique over its reference, which takes ``reference`` seconds or joules for a ``batch``."""
    spent, refusal = _spent(quantity, cost)
    if spent is None:
        return BreakEven(quantity=quantity, cost=None, refusal=refusal)
    if compared is None or reference is None:
        return BreakEven(quantity=quantity, cost=spent, refusal="nothing was compared")
    ratio = compared.ratio
    if ratio is None or compared.demoted:
        return BreakEven(
            quantity=quantity, cost=spent, refusal=compared.reason or "the ratio has no interval"
        )
    wider = 1 + compared.allowance  # while too few processes were seen
    ratios = (ratio.low / wider, ratio.value, ratio.high * wider)
    saved = [reference * (1 - each) / batch for each in ratios]
    low, count, high = (spent / each if each > 0 else math.inf for each in saved)
    return BreakEven(quantity=quantity, cost=spent, count=count, low=low, high=high)


def _spent(quantity: Quantity, cost: Cost | None) -> tuple[float | None, str | None]:
    if cost is None:
        return None, "what applying it cost is not known"
    if quantity == "time":
        return cost.time_s, None
    if cost.energy_j is None:
        return None, f"not measured: {cost.energy_reason}"
    if cost.energy_provenance is Provenance.ESTIMATED_MODEL:
        return None, "not measured: there are only estimates of energy, and those repeat the time"
    return cost.energy_j, None
