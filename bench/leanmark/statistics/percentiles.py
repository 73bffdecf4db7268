"""Latency percentiles with order-statistic intervals, refused where the samples are too few. Pure.

Every sample must be one step: a block of several is a mean, and the tail of means is not the tail of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leanmark.record import Interval
from leanmark.statistics import stats

NEEDED: Mapping[float, int] = {0.5: 6, 0.9: 64, 0.95: 130, 0.99: 662, 0.999: 6636}
"""Samples that a quantile needs at least.

For the median, what its interval at 95 % needs. For the others MLPerf's early stopping with one step over
the bound: P(at most one of n above the quantile) <= 1 % (mlcommons/inference, ``loadgen/early_stopping.cc``).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """The quantile ``q`` of ``count`` steps in seconds; ``interval`` is ``None`` below ``needed`` steps."""

    q: float
    count: int
    needed: int
    interval: Interval | None

    @property
    def name(self) -> str:
        """``p99.9``."""
        return f"p{100 * self.q:g}"

    @property
    def refusal(self) -> str | None:
        """What to print in place of a number: ``needs n ≥ 662``."""
        return None if self.interval is not None else f"needs n ≥ {self.needed:,}"


def percentiles(samples_s: ArrayLike) -> tuple[Percentile, ...]:
    """p50, p90, p95, p99 and p99.9 of ``samples_s`` [n], the seconds of single steps.

    The interval takes the steps as independent and says nothing of what another process would have given.

    Raises:
        ValueError: a sample is negative or not a number, which means a broken clock.
    """
    samples = np.asarray(samples_s, dtype=np.float64)
    if not np.all(samples >= 0):  # NaN is not >= 0 either
        raise ValueError("a step took a negative or undefined time: the clock is broken")
    return tuple(_percentile(samples, q, needed) for q, needed in NEEDED.items())


def _percentile(samples: stats.Floats, q: float, needed: int) -> Percentile:
    interval = stats.order_statistic_interval(samples, q) if len(samples) >= needed else None
    return Percentile(q=q, count=len(samples), needed=needed, interval=interval)
