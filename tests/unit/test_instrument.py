from __future__ import annotations

import math
from dataclasses import replace

import pytest

from leanmark.record import Block, Interval, Series
from leanmark.statistics import instrument
from leanmark.statistics.rounds import Pair
from leanmark.statistics.stats import paired_log_ratios


def series(*values: float, doubt: float | None = None, degrees: tuple[float | None, ...] = ()) -> Series:
    known = degrees or (None,) * len(values)
    return Series(
        metric="energy_j",
        meter="nvml",
        blocks=tuple(
            Block(
                process=0,
                round=round_,
                order=0,
                value=value,
                loops=1,
                start_s=0.0,
                uncertainty=doubt,
                temperature_c=temperature,
            )
            for round_, (value, temperature) in enumerate(zip(values, known, strict=True))
        ),
    )


HALF = Interval(value=0.5, low=0.49, high=0.51, confidence=0.95, method="t", scope="across-processes")


def test_the_doubt_of_both_meters_widens_a_ratio_in_quadrature() -> None:
    found = instrument.widened(HALF, series(10.0, doubt=0.3), series(5.0, doubt=0.2))
    share = math.hypot(0.03, 0.04)
    assert found == replace(HALF, low=0.49 / (1 + share), high=0.51 * (1 + share))


def test_without_a_stated_doubt_a_ratio_stays_as_it_is() -> None:
    assert instrument.widened(HALF, series(10.0), series(5.0)) is HALF
    assert instrument.widened(None, series(10.0, doubt=1.0), series(5.0)) is None
    assert instrument.doubt(series(10.0)) == 0.0


def test_the_doubt_is_that_of_a_typical_window() -> None:
    mixed = replace(
        series(10.0), blocks=(*series(10.0, doubt=0.1).blocks, *series(10.0, 10.0, doubt=5.0).blocks)
    )
    assert instrument.doubt(mixed) == pytest.approx(0.5)


def test_rounds_at_unequal_temperatures_are_set_aside_and_counted() -> None:
    below = series(2.0, 2.0, 2.0, degrees=(50.0, 60.0, None))
    above = series(1.0, 4.0, 1.0, degrees=(53.0, 63.1, 80.0))
    found = instrument.matched(Pair(baseline=below, candidate=above))
    ratios = paired_log_ratios(found.baseline, found.candidate)
    assert list(ratios[0]) == pytest.approx([math.log(0.5)] * 2)
    assert [one.message for one in found.findings] == [
        "1 of 3 rounds of energy set aside in 1 process: their temperatures differed by more than 3 °C"
    ]


def test_where_no_temperature_is_known_all_rounds_stay() -> None:
    pair = Pair(baseline=series(2.0, 2.0), candidate=series(1.0, 1.0))
    assert instrument.matched(pair) is pair


def test_where_no_round_is_matched_there_is_no_ratio() -> None:
    below, above = series(2.0, 2.0, degrees=(40.0, 40.0)), series(1.0, 1.0, degrees=(70.0, 70.0))
    found = instrument.matched(Pair(baseline=below, candidate=above))
    assert paired_log_ratios(found.baseline, found.candidate) == {}
