"""What other tools would have said of two series of single steps, measured one after the other. Pure.

Both sides get the same seconds that leanmark's contest gives a side. The steps of each are of one process,
as a test or a benchmarked function has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean, stdev
from typing import Literal

from pytest_benchmark.utils import PercentageRegressionCheck
from scipy.special import stdtr

Answer = Literal["worse", "better", "none"]
Samples = tuple[float, ...]

FAIL_AT_PERCENT = 5
RUNS = 10
"""hyperfine's least number of runs."""

SIGNIFICANT = 0.05


def pytest_benchmark(baseline: Samples, candidate: Samples) -> Answer:
    """Its own ``--benchmark-compare-fail=mean:5%``. That looks for worse only; better is its mirror image."""
    check = PercentageRegressionCheck("mean", FAIL_AT_PERCENT)
    change = check.compute({"mean": fmean(candidate)}, {"mean": fmean(baseline)})
    return _answer(1 + change / 100, abs(change) > check.threshold)


def hyperfine(baseline: Samples, candidate: Samples) -> Answer:
    """ "B ran 1.05 ± 0.02 times slower than A", where that ± does not reach 1 (``relative_speed.rs``)."""
    below, above = _runs(baseline), _runs(candidate)
    ratio = fmean(above) / fmean(below)
    error = ratio * math.hypot(stdev(below) / fmean(below), stdev(above) / fmean(above))
    return _answer(ratio, abs(ratio - 1) > error)


def welch(baseline: Samples, candidate: Samples) -> Answer:
    """hyperfine's ``scripts/welch_ttest.py``: p < 0.05 over the runs."""
    below, above = _runs(baseline), _runs(candidate)
    parts = [stdev(side) ** 2 / RUNS for side in (below, above)]
    if sum(parts) == 0:
        return "none"
    t = (fmean(above) - fmean(below)) / math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(part**2 / (RUNS - 1) for part in parts)
    return _answer(fmean(above) / fmean(below), 2 * float(stdtr(freedom, -abs(t))) < SIGNIFICANT)


RULES: Mapping[str, Callable[[Samples, Samples], Answer]] = {
    "pytest-benchmark, mean:5%": pytest_benchmark,
    "hyperfine-like, mean ± sd of 10 runs": hyperfine,
    "hyperfine-like, Welch's t-test": welch,
}


def _runs(samples: Samples) -> list[float]:
    """The means of ten stretches of equal length, one after the other."""
    size = len(samples) // RUNS
    return [fmean(samples[run * size : (run + 1) * size]) for run in range(RUNS)]


def _answer(ratio: float, different: bool) -> Answer:
    if not different:
        return "none"
    return "worse" if ratio > 1 else "better"
