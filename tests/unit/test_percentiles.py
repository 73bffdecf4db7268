from __future__ import annotations

import numpy as np
import pytest
from scipy.special import bdtr

from leanmark.statistics import percentiles
from leanmark.statistics.percentiles import NEEDED, Percentile


def found(samples_s: object) -> dict[str, Percentile]:
    return {each.name: each for each in percentiles.percentiles(samples_s)}  # type: ignore[arg-type]


def test_the_names_are_those_of_the_field() -> None:
    assert list(found([1.0])) == ["p50", "p90", "p95", "p99", "p99.9"]


@pytest.mark.parametrize(("q", "needed"), [(0.9, 64), (0.95, 130), (0.99, 662), (0.999, 6636)])
def test_the_least_number_of_samples_is_where_two_above_become_near_certain(q: float, needed: int) -> None:
    assert NEEDED[q] == needed
    at_most_one_above = [float(bdtr(1, n, 1 - q)) for n in (needed - 1, needed)]
    assert at_most_one_above[0] > 0.01 >= at_most_one_above[1]


@pytest.mark.parametrize(("q", "needed"), NEEDED.items())
def test_below_that_number_there_is_a_refusal_instead_of_a_number(q: float, needed: int) -> None:
    name = f"p{100 * q:g}"
    few, enough = found(np.ones(needed - 1))[name], found(np.ones(needed))[name]
    assert (few.count, few.interval, few.refusal) == (needed - 1, None, f"needs n ≥ {needed:,}")
    assert (enough.interval is not None, enough.refusal) == (True, None)


def test_the_bounds_are_order_statistics() -> None:
    """1 to 1,000: the binomial of 1,000 and 0.9 leaves 2.5 % below 881 and above 918."""
    p90 = found(np.arange(1.0, 1001.0))["p90"].interval
    assert p90 is not None
    assert p90.value == pytest.approx(900.1)
    assert (p90.low, p90.high) == (881.0, 919.0)
    assert p90.scope == "within-process"


def test_the_interval_covers_the_true_quantile() -> None:
    """A heavy tail, 400 times 700 steps; nominal 95 %."""
    draws = np.random.default_rng(0).lognormal(sigma=1.0, size=(400, 700))
    true_p95 = float(np.exp(1.6448536))
    intervals = [found(draw)["p95"].interval for draw in draws]
    covered = sum(1 for each in intervals if each is not None and each.low <= true_p95 <= each.high)
    assert covered / 400 >= 0.94


def test_a_broken_clock_is_named() -> None:
    for broken in ([1.0, -1e-9], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="the clock is broken"):
            percentiles.percentiles(broken)
