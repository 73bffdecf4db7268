from __future__ import annotations

import pytest

from leanmark.errors import UsageError
from leanmark.intensity import Intensity
from leanmark.reading import carbon, sci

FRANCE = Intensity(
    value_g_per_kwh=56.0, zone="France (FRA)", period="2023", source="a table", basis="location-based average"
)


def test_the_score_is_energy_times_pue_times_intensity_plus_embodied() -> None:
    making = sci.Embodied(total_kg=150.0, lifetime_years=3.0)
    boundary = sci.Boundary(intensity=FRANCE, pue=1.25, embodied=making)
    found = sci.score(3.6e6, 3600.0, boundary)
    assert found.operational_g == pytest.approx(1.25 * 56.0)
    assert found.embodied_g == pytest.approx(150_000 / 26_280)  # 5.7 g of 26,280 h
    assert found.total_g == pytest.approx(1.25 * 56.0 + 150_000 / 26_280)
    assert found.embodied_range_g == pytest.approx((found.embodied_g / 2, found.embodied_g * 2))


def test_without_pue_and_embodied_it_is_the_operational_part() -> None:
    found = sci.score(3.6e6, 3600.0, sci.Boundary(intensity=FRANCE))
    assert (found.operational_g, found.embodied_g, found.total_g) == (56.0, None, 56.0)
    assert found.embodied_range_g is None
    assert found.operational_g == carbon.grams(3.6e6, FRANCE)


@pytest.mark.parametrize("pue", [0.0, 0.99, -1.2, 5.1, float("nan"), float("inf")])
def test_an_absurd_pue_is_refused(pue: float) -> None:
    with pytest.raises(UsageError, match="between 1 and 5"):
        sci.Boundary(intensity=FRANCE, pue=pue)


@pytest.mark.parametrize("kg", [0.0, -1.0, 1e9, float("nan"), float("inf")])
def test_absurd_embodied_emissions_are_refused(kg: float) -> None:
    with pytest.raises(UsageError, match="embodied emissions of a device"):
        sci.embodied(kg, None)


@pytest.mark.parametrize("years", [0.0, -3.0, 31.0, float("nan")])
def test_an_absurd_lifetime_is_refused(years: float) -> None:
    with pytest.raises(UsageError, match="up to 30 years"):
        sci.embodied(150.0, years)


def test_a_lifetime_of_nothing_is_refused() -> None:
    assert sci.embodied(None, None) is None
    with pytest.raises(UsageError, match="give --embodied too"):
        sci.embodied(None, 4.0)
