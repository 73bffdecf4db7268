"""Many verdicts at once: which of them hold together at a stated family-wise error rate. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import ndtr, ndtri, stdtr, stdtrit

from leanmark.record import Comparison
from leanmark.statistics.stats import CONFIDENCE, MIN_PROCESSES

FAMILY_WISE = 0.05
"""The probability of even one false verdict in a run that is accepted."""


def p_value(comparison: Comparison) -> float:
    """How likely a ratio this far beyond the margin would be if the true one were at the margin; one-sided.

    The standard error is that behind the interval: of a t interval over processes, or, with few of them, of
    the interval within processes and the allowance for what is between them. 1 where there is no interval.
    """
    ratio = comparison.ratio
    if ratio is None:
        return 1.0
    half = math.log(max(ratio.high / ratio.value, ratio.value / ratio.low))
    beyond = abs(math.log(ratio.value)) - math.log1p(comparison.margin)
    upper = (1 + CONFIDENCE) / 2
    if comparison.processes >= MIN_PROCESSES:
        freedom = comparison.processes - 1
        error = half / float(stdtrit(freedom, upper))
        return float(stdtr(freedom, -beyond / error)) if error > 0 else float(beyond <= 0)
    error = math.hypot(half, math.log1p(comparison.allowance)) / float(ndtri(upper))
    return float(ndtr(-beyond / error)) if error > 0 else float(beyond <= 0)


def holm(p_values: Sequence[float]) -> list[bool]:
    """Which hypotheses are rejected together at the ``FAMILY_WISE`` rate.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    1979.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > FAMILY_WISE / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected
