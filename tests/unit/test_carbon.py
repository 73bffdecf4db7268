import sys

import pytest

from leanmark.errors import UnknownName, UsageError
from leanmark.reading import carbon


def test_the_world_average_is_codecarbons_and_says_so() -> None:
    world = carbon.world_average()
    assert world.value_g_per_kwh == 475
    assert world.is_world_average
    assert "IEA" in world.source


@pytest.mark.parametrize("zone", ["FRA", "fra", "France", " france "])
def test_a_country_by_code_or_name_in_any_case(zone: str) -> None:
    france = carbon.for_zone(zone)
    assert france.zone == "France (FRA)"
    assert 20 < france.value_g_per_kwh < 120
    assert france.period.isdigit()
    assert not france.is_world_average


@pytest.mark.parametrize(("zone", "near"), [("Germny", "Germany"), ("germny", "Germany"), ("FRB", "FRA")])
def test_an_unknown_zone_names_the_nearest(zone: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        carbon.for_zone(zone)
    assert near in caught.value.nearest


def test_a_hopeless_zone_lists_the_codes() -> None:
    with pytest.raises(UnknownName, match="Known: ABW, AFG"):
        carbon.for_zone("0123456789")


def test_reading_the_tables_does_not_import_codecarbon() -> None:
    before = "codecarbon" in sys.modules
    carbon.world_average()
    carbon.for_zone("SWE")
    assert ("codecarbon" in sys.modules) == before


@pytest.mark.parametrize("value", [0.0, -1.0, 2000.1, float("nan"), float("inf")])
def test_an_absurd_intensity_is_refused(value: float) -> None:
    with pytest.raises(UsageError, match="above 0 and at most 2000"):
        carbon.explicit(value)


def test_grams_of_one_kilowatt_hour_are_the_intensity() -> None:
    assert carbon.grams(3.6e6, carbon.explicit(56.0)) == 56.0
    assert carbon.grams(4e-3, carbon.explicit(475.0)) == pytest.approx(527.8e-9, rel=1e-3)


def test_without_codecarbon_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carbon, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="codecarbon, which is not installed"):
        carbon.world_average()
    with pytest.raises(UsageError, match="codecarbon, which is not installed"):
        carbon.for_zone("FRA")
    assert carbon.explicit(56).value_g_per_kwh == 56


COUNTRIES = ("FRA", "USA", "DEU", "GBR", "IND", "CHN", "SWE", "NOR", "BRA", "POL")


@pytest.mark.parametrize("country", COUNTRIES)
def test_the_factor_of_a_country_is_codecarbons_to_the_last_digit(country: str) -> None:
    from codecarbon.input import DataSource

    ours = carbon.for_zone(country).value_g_per_kwh
    assert ours == DataSource().get_global_energy_mix_data()[country]["carbon_intensity"]
    assert carbon.grams(3.6e6, carbon.for_zone(country)) == ours


@pytest.mark.parametrize("country", COUNTRIES)
def test_the_same_joules_are_codecarbons_grams(country: str) -> None:
    """Up to the last bit: codecarbon multiplies kilograms."""
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    place = GeoMetadata(country_iso_code=country, country_name=country)
    kilograms = Emissions(DataSource()).get_private_infra_emissions(Energy.from_energy(2.5), place)
    assert carbon.grams(2.5 * 3.6e6, carbon.for_zone(country)) == pytest.approx(1000 * kilograms, rel=1e-14)
