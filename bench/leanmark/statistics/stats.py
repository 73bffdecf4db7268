"""Intervals. Pure; the unit of replication is the process, not the iteration.

Pooling the iterations of all processes gives a "95 %" interval that covers 25-37 %; the t interval over
per-process medians covers 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc, ndtri, stdtrit

from leanmark.record import Block, Interval, Series, Summary

Floats = NDArray[np.float64]
Scope = Literal["within-process", "across-processes", "samples"]
Ratios = Mapping[int, Floats]
"""Log-ratios ln(candidate / baseline) of the rounds [rounds], by process."""

CONFIDENCE = 0.95

MIN_PROCESSES = 5
"""With fewer, the spread between processes cannot be estimated from the data: 3 cover only 90-94 %."""

BETWEEN_PROCESS_SD = 0.033
"""The largest standard deviation of per-process median log-ratios seen in calibration.

It is that of A/A contests (identical code on both sides) of a small network on one unpinned thread;
pinned contests gave 0.6 to 1.5 %. It stands in where too few processes were run to see it.
"""


_T_METHOD = "t over per-process medians"


def paired_log_ratios(baseline: Series, candidate: Series) -> dict[int, Floats]:
    """ln(candidate / baseline) [rounds] for each process; pairs share process and round.

    A round in which either block is flagged is left out as a whole.

    Raises:
        ValueError: a value is not positive, so it has no ratio.
    """
    ours = {(block.process, block.round): block for block in candidate.blocks}
    pairs: dict[int, list[float]] = {}
    for block in baseline.blocks:
        other = ours.get((block.process, block.round))
        if other is None or block.flags or other.flags:
            continue
        pairs.setdefault(block.process, []).append(_log(other.value) - _log(block.value))
    return {process: np.array(values) for process, values in sorted(pairs.items())}


def ratio_interval(ratios: Ratios) -> Interval | None:
    """The ratio candidate / baseline, across processes where there are enough of them."""
    if len(ratios) >= MIN_PROCESSES:
        return across_processes(ratios)
    return within_process(ratios)


def across_processes(ratios: Ratios) -> Interval:
    """The t interval over the per-process medians of the log-ratios, as a ratio.

    Raises:
        ValueError: fewer than ``MIN_PROCESSES`` processes.
    """
    if len(ratios) < MIN_PROCESSES:
        raise ValueError(f"a t interval needs {MIN_PROCESSES} processes, not {len(ratios)}")
    centre, half = _t_interval([float(np.median(values)) for values in ratios.values()])
    return _exponentiated(centre, centre - half, centre + half, _T_METHOD, "across-processes")


def within_process(ratios: Ratios) -> Interval | None:
    """The median of the per-process medians, for the processes that were run and no others.

    Each process gets an order-statistic interval of its median at 1 - 0.05 / P; the hull of these covers
    all P medians at once with at least 95 % (Bonferroni), and so any average of them. What other
    processes would have given is not in it: that is what :func:`allowance` is for. ``None`` where a
    process has too few rounds (6 at P = 1, 8 at P = 4).
    """
    hull = _hull(list(ratios.values()))
    if hull is None:
        return None
    return _exponentiated(hull.value, hull.low, hull.high, hull.method, hull.scope)


def unpaired_ratio(baseline: Series, candidate: Series) -> Interval | None:
    """candidate / baseline where no rounds are shared: Welch's t interval over log per-process medians.

    ``None`` with fewer than ``MIN_PROCESSES`` processes on either side.

    Raises:
        ValueError: a median is not positive, so it has no ratio.
    """
    above, below = ([_log(value) for value in process_medians(side)] for side in (candidate, baseline))
    if min(len(above), len(below)) < MIN_PROCESSES:
        return None
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (above, below)]
    centre = float(np.mean(above) - np.mean(below))
    spread = sum(parts)
    half = 0.0
    if spread > 0:
        freedom = spread**2 / (parts[0] ** 2 / (len(above) - 1) + parts[1] ** 2 / (len(below) - 1))
        half = _t(freedom) * math.sqrt(spread)
    return _exponentiated(centre, centre - half, centre + half, f"Welch {_T_METHOD}", "across-processes")


def allowance(processes: int) -> float:
    """What is added to the margin while too few processes were seen, as a relative difference.

    1.96 * ``BETWEEN_PROCESS_SD`` / sqrt(P); 0 from ``MIN_PROCESSES`` on, where the interval contains it.
    """
    return 0.0 if processes >= MIN_PROCESSES else _z() * BETWEEN_PROCESS_SD / math.sqrt(processes)


def detectable(interval: Interval, processes: int, margin: float) -> float:
    """The smallest relative effect that data this noisy would call with 80 % probability.

    ln(1 + margin) + (t + z_0.80) * SE on the log scale, with t instead of the normal quantile because the
    verdict's interval is a t interval; with few processes the allowance joins the margin and the SE.
    """
    few = allowance(processes)
    half = math.log(max(interval.high / interval.value, interval.value / interval.low))
    error = half / _t(processes - 1) if few == 0 else math.hypot(half, few) / _z()
    return math.expm1(math.log1p(margin) + math.log1p(few) + half + float(ndtri(0.80)) * error)


def processes_to_settle(interval: Interval, processes: int, margin: float) -> int | None:
    """About how many processes would take the interval off the margin it crosses; ``None`` beyond 200.

    For an interval across processes: its half-width shrinks with the root of their number, and its centre
    is taken as it is.
    """
    half = math.log(max(interval.high / interval.value, interval.value / interval.low))
    gap = abs(abs(math.log(interval.value)) - math.log1p(margin))
    needed = math.ceil(processes * (half / gap) ** 2) + 1 if gap > 0 else math.inf
    return int(needed) if needed <= 200 else None


def order_statistic_interval(
    values: ArrayLike, q: float = 0.5, confidence: float = CONFIDENCE
) -> Interval | None:
    """The quantile ``q`` of ``values`` [n], without assuming a distribution; ``None`` if n is too small.

    The bounds are the order statistics that leave at most (1 - confidence) / 2 of the binomial
    distribution of "values below the quantile" on either side (Conover, Practical Nonparametric
    Statistics, section 3.2).
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        return None
    tail = (1 - confidence) / 2
    ranks = np.arange(n + 1)
    low = int(np.searchsorted(bdtr(ranks, n, q), tail, side="right")) - 1
    above = np.nonzero(bdtrc(ranks, n, q) <= tail)[0]
    high = int(above[0])
    if low < 0 or high >= n:
        return None
    return Interval(
        value=float(np.clip(np.quantile(ordered, q), ordered[low], ordered[high])),
        low=float(ordered[low]),
        high=float(ordered[high]),
        confidence=confidence,
        method="order statistics",
        scope="within-process",
    )


def wilson(successes: int, n: int) -> Interval:
    """A share, such as an accuracy: Wilson's score interval (JASA 22, 1927)."""
    z, share = _z(), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(
        value=share,
        low=max(0.0, min(share, centre - half)),
        high=min(1.0, max(share, centre + half)),
        confidence=CONFIDENCE,
        method="Wilson",
        scope="samples",
    )


def paired_accuracy_change(gained: int, lost: int, n: int) -> Interval:
    """The accuracy of one model minus that of another on the same ``n`` samples.

    The adjusted Wald interval for matched pairs: half an observation is added to each cell of the 2 x 2
    table (Agresti and Min, Statistics in Medicine 24, 2005). ``value`` is the observed difference.
    """
    total, ups, downs = n + 2, gained + 0.5, lost + 0.5
    centre = (ups - downs) / total
    half = _z() * math.sqrt(ups + downs - (ups - downs) ** 2 / total) / total
    return Interval(
        value=(gained - lost) / n,
        low=max(-1.0, centre - half),
        high=min(1.0, centre + half),
        confidence=CONFIDENCE,
        method="adjusted Wald for matched pairs",
        scope="samples",
    )


def summarize(series: Series) -> Summary:
    """A series in a few numbers, from its blocks without flags (from all, where every one is flagged).

    With enough processes: the mean and t interval of the per-process medians. With fewer: the median of
    the medians and the hull of the order-statistic intervals, or no interval at all.
    """
    medians = process_medians(series)
    centre, interval = float(np.median(medians)), _hull(_by_process(series))
    if len(medians) >= MIN_PROCESSES:
        centre, half = _t_interval(medians)
        interval = Interval(
            value=centre,
            low=centre - half,
            high=centre + half,
            confidence=CONFIDENCE,
            method=_T_METHOD,
            scope="across-processes",
        )
    return Summary(
        metric=series.metric,
        value=centre,
        interval=interval,
        count=len(series.blocks),
        processes=series.processes,
        provenance=series.provenance,
    )


def process_medians(series: Series) -> list[float]:
    """The median of each process, from its blocks without flags (from all, where every one is flagged)."""
    return [float(np.median(values)) for values in _by_process(series)]


def _by_process(series: Series) -> list[Floats]:
    clean: Sequence[Block] = [block for block in series.blocks if not block.flags] or series.blocks
    values: dict[int, list[float]] = {}
    for block in clean:
        values.setdefault(block.process, []).append(block.value)
    return [np.array(each) for each in values.values()]


def _hull(processes: Sequence[Floats]) -> Interval | None:
    """The median of per-process medians in the hull of their Bonferroni-adjusted intervals."""
    if not processes:
        return None
    confidence = 1 - (1 - CONFIDENCE) / len(processes)
    each = [order_statistic_interval(values, confidence=confidence) for values in processes]
    found = [interval for interval in each if interval is not None]
    if len(found) < len(each):
        return None
    return Interval(
        value=float(np.median([interval.value for interval in found])),
        low=min(interval.low for interval in found),
        high=max(interval.high for interval in found),
        confidence=CONFIDENCE,
        method="hull of per-process order-statistic intervals",
        scope="within-process",
    )


def _t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the half-width around it."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), _t(len(values) - 1) * error


def _exponentiated(centre: float, low: float, high: float, method: str, scope: Scope) -> Interval:
    return Interval(
        value=math.exp(centre),
        low=math.exp(low),
        high=math.exp(high),
        confidence=CONFIDENCE,
        method=method,
        scope=scope,
    )


def _log(value: float) -> float:
    if value <= 0:
        raise ValueError(f"a ratio needs positive values, not {value:g}")
    return math.log(value)


def _t(freedom: float) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _z() -> float:
    return float(ndtri((1 + CONFIDENCE) / 2))
