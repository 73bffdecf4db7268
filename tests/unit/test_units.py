from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmark import units


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (units.seconds, 187e-6, "187 µs"),
        (units.seconds, 1.0449e-3, "1.04 ms"),
        (units.seconds, 999.6e-6, "1.00 ms"),
        (units.seconds, 12.0, "12.0 s"),
        (units.seconds, 119.4, "119 s"),
        (units.seconds, 125.2, "2 min 5 s"),
        (units.seconds, 12_000.0, "3 h 20 min"),
        (units.seconds, 0.0, "0 s"),
        (units.guess, 87.6, "88 s"),
        (units.guess, 125.2, "2 min 5 s"),
        (units.joules, 12.34e-3, "12.3 mJ"),
        (units.joules, 4100.0, "4.10 kJ"),
        (units.grams, 1.62e-6, "1.6 µg"),
        (units.grams, 123e-6, "123 µg"),
        (units.size, 512, "512 B"),
        (units.size, 4.21e6, "4.2 MB"),
        (units.size, 123.4e6, "123 MB"),
        (units.count, 980, "980"),
        (units.count, 12_345, "12.3 k"),
        (units.count, 1.2e6, "1.20 M"),
        (units.rate, 5350.0, "5.35 k/s"),
        (units.rate, 5.35, "5.35/s"),
        (units.ratio, 0.6249, "0.62×"),
        (units.ratio, 0.0312, "0.031×"),
        (units.ratio, 12.44, "12.4×"),
        (units.percent, 0.9722, "97.2 %"),
        (units.points, -0.0031, "−0.3"),
        (units.points, 0.011, "+1.1"),
        (units.points, -0.0001, "0.0"),
    ],
)
def test_reads_as_people_write_it(function: Callable[[Any], str], value: float, text: str) -> None:
    assert function(value) == text


@pytest.mark.parametrize(
    "function",
    [
        units.seconds,
        units.joules,
        units.grams,
        units.size,
        units.count,
        units.rate,
        units.ratio,
        units.percent,
        units.points,
    ],
)
def test_none_is_never_a_zero(function: Callable[[Any], str]) -> None:
    assert function(None) == "not measured"


def test_an_interval_has_the_same_decimals_throughout() -> None:
    assert units.ratio_interval(0.62, 0.601, 0.638) == "0.62× [0.60, 0.64]"
    assert units.ratio_interval(0.0312, 0.03, 0.0329) == "0.031× [0.030, 0.033]"


@given(st.floats(min_value=1e-9, max_value=1e14))
def test_the_text_is_within_half_a_percent_of_the_value(value: float) -> None:
    number, unit = units.joules(value).split(" ")
    scale = {"nJ": 1e-9, "µJ": 1e-6, "mJ": 1e-3, "J": 1, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "TJ": 1e12}[unit]
    assert float(number) * scale == pytest.approx(value, rel=5.1e-3)
    assert 1 <= float(number) < 1000
