"""Is it precise enough, and what would help more: rounds or processes? Pure.

Nothing here asks whether a difference is significant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from leanmark.record import Case, Measurement, SamplingPlan
from leanmark.reference import reference_among
from leanmark.statistics import stats
from leanmark.statistics.rounds import set_aside
from leanmark.statistics.stats import Ratios

MIN_ROUNDS = 10
"""Fewer give no order-statistic interval for a process at the level that several need."""

MAX_ROUNDS = 60

_MEDIAN_VARIANCE = math.pi / 2
"""The variance of a median over that of a mean, for normal noise."""


def ratios(measurements: Iterable[Measurement]) -> dict[Case, Ratios]:
    """The log-ratios of every case to its reference, from the latency measurements of one contest."""
    found = {one.case: series for one in measurements if (series := one.find("latency_s"))}
    pairs: dict[Case, Ratios] = {}
    for case, series in found.items():
        reference = reference_among(case, found)
        below = found.get(reference) if reference else None
        if below is not None:
            pair = set_aside(below, series)
            pairs[case] = stats.paired_log_ratios(pair.baseline, pair.candidate)
    return pairs


def half_width(found: Ratios) -> float:
    """The relative half-width of the interval of the ratio, the allowance for few processes included."""
    interval = stats.ratio_interval(found)
    if interval is None:
        return math.inf
    half = math.log(max(interval.high / interval.value, interval.value / interval.low))
    return math.expm1(half + math.log1p(stats.allowance(len(found))))


def need(found: Mapping[Case, Ratios], plan: SamplingPlan) -> float:
    """The widest half-width over the one that is wanted: above 1, more is needed."""
    return max((half_width(one) for one in found.values()), default=0.0) / plan.precision


def rounds(found: Mapping[Case, Ratios], open_s: float, round_s: float, plan: SamplingPlan) -> int:
    """How many rounds the next process should play.

    Kalibera and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013: the cheapest way to a given
    variance repeats the inner level sqrt(cost ratio * variance ratio) times. ``open_s`` is the cost of a
    process, ``round_s`` that of a round.
    """
    wanted = [
        _optimum(one, open_s / round_s)
        for one in found.values()
        if len(one) > 1 and half_width(one) > plan.precision
    ]
    return min(MAX_ROUNDS, max([MIN_ROUNDS, *wanted]))


def _optimum(found: Ratios, cost_ratio: float) -> int:
    inner = float(np.mean([np.var(values, ddof=1) for values in found.values() if len(values) > 1]))
    count = float(np.mean([len(values) for values in found.values()]))
    medians = [float(np.median(values)) for values in found.values()]
    seen = float(np.var(medians, ddof=1))
    between = seen - _MEDIAN_VARIANCE * inner / count
    if between <= 0:  # the rounds explain all that is seen: only more of them help
        return MAX_ROUNDS
    return math.ceil(math.sqrt(cost_ratio * _MEDIAN_VARIANCE * inner / between))
