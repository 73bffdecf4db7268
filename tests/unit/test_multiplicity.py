from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmark.reading.compare import judge
from leanmark.record import Case, Comparison, Interval
from leanmark.statistics import multiplicity, stats

BASELINE = Case(workload="cnn")


def compared(ratio: Interval | None, processes: int) -> Comparison:
    return Comparison(
        metric="latency_s",
        baseline=BASELINE,
        candidate=Case(workload="cnn", technique="prune"),
        ratio=ratio,
        verdict="inconclusive",
        margin=0.02,
        allowance=stats.allowance(processes),
        processes=processes,
    )


def interval(value: float, half: float) -> Interval:
    return Interval(
        value=value,
        low=value / (1 + half),
        high=value * (1 + half),
        confidence=0.95,
        method="t",
        scope="across-processes",
    )


def test_holm_by_hand() -> None:
    # Holm's steps at 0.05: 0.01 <= 0.05/4, 0.015 <= 0.05/3, 0.03 > 0.05/2: stop
    assert multiplicity.holm([0.01, 0.04, 0.03, 0.015]) == [True, False, False, True]
    assert multiplicity.holm([]) == []


def test_a_ratio_at_the_margin_is_a_coin_toss() -> None:
    assert multiplicity.p_value(compared(interval(1.02, 0.01), 8)) == pytest.approx(0.5)


def test_a_threefold_speed_up_survives_a_hundred_comparisons_with_two_processes() -> None:
    p = multiplicity.p_value(compared(interval(1 / 3, 0.05), 2))
    assert multiplicity.holm([p] + [0.5] * 99)[0]


def test_without_an_interval_nothing_is_rejected() -> None:
    assert multiplicity.p_value(compared(None, 5)) == 1.0


@given(st.floats(0.3, 3.0), st.floats(0.001, 0.3), st.integers(5, 30))
def test_a_verdict_alone_has_a_p_value_below_half_the_level(
    value: float, half: float, processes: int
) -> None:
    """The two say the same: the whole 95 % interval beyond the margin is one-sided 2.5 %."""
    ratio = interval(value, half)
    called = judge(ratio, 0.02, 0.0, "lower") in ("better", "worse")
    assert called == (multiplicity.p_value(compared(ratio, processes)) < 0.025)


def test_the_family_wise_rate_is_held_on_equal_code() -> None:
    draw = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        medians = draw.normal(0, 0.015, (20, 5))
        ratios = [stats.across_processes({n: np.array([m]) for n, m in enumerate(row)}) for row in medians]
        alarms += any(multiplicity.holm([multiplicity.p_value(compared(one, 5)) for one in ratios]))
    assert alarms / 400 < multiplicity.FAMILY_WISE
