from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import store, units
from leanmark.errors import UsageError
from leanmark.intensity import Embodied, Intensity, Site
from leanmark.reading import carbon, quality_run, sci, tabulate
from leanmark.record import Case, Provenance
from leanmark.report import to_target
from leanmark.report.details import details
from leanmark.report.notes import legend

from . import synthetic

FRANCE = Intensity(
    value_g_per_kwh=56.0, zone="France (FRA)", period="2023", source="a table", basis="location-based average"
)


def test_the_score_is_energy_times_pue_times_intensity_plus_embodied() -> None:
    making = Embodied(total_kg=150.0, lifetime_years=3.0)
    boundary = sci.Boundary(intensity=FRANCE, pue=1.25, embodied=making)
    found = sci.score(3.6e6, 3600.0, boundary)
    assert found.operational_g == pytest.approx(1.25 * 56.0)
    assert found.embodied_g is not None
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
    with pytest.raises(UsageError, match="give those too"):
        sci.embodied(None, 4.0)


def test_a_site_states_what_makes_sense() -> None:
    making = Embodied(total_kg=150.0)
    assert str(Site(pue=1.4, embodied=making)) == "PUE 1.4, 150 kg over 3 years of use for making the device"
    assert Site().stated is None
    assert Site(pue=1.4).stated == Site(pue=1.4)
    with pytest.raises(UsageError, match="between 1 and 5, not 0.9"):
        Site(pue=0.9)


def test_what_is_not_given_is_what_the_run_was_made_with() -> None:
    made = synthetic.run(site=Site(pue=1.4, embodied=Embodied(total_kg=150.0)))
    found = sci.boundary(made, FRANCE, Site(pue=1.2))
    assert (found.pue, found.embodied) == (1.2, Embodied(total_kg=150.0))
    assert sci.boundary(synthetic.run(), FRANCE, Site()).pue is None


def test_a_step_has_its_grams_beyond_energy_and_none_of_them_are_in_the_others() -> None:
    records = synthetic.records()
    site = Site(pue=1.5, embodied=Embodied(total_kg=150.0, lifetime_years=3.0))
    plain, stated = (
        tabulate.build([replace(records, run=replace(records.run, site=one))], carbon.explicit(100.0))
        for one in (None, site)
    )
    row = next(row for row in stated[0].rows if row.energy and row.latency)
    before = next(one for one in plain[0].rows if one.case == row.case)
    assert row.energy is not None
    assert row.latency is not None
    assert row.footprint is not None
    joules, seconds = row.energy.summary.value, row.latency.summary.value
    assert row.co2_g == before.co2_g == pytest.approx(joules / 3.6e6 * 100.0)
    assert row.footprint.score.operational_g == pytest.approx(1.5 * joules / 3.6e6 * 100.0)
    assert row.footprint.score.embodied_g == pytest.approx(150_000.0 * seconds / (3 * 8760 * 3600))
    assert before.footprint is None
    lines = dict(details(row))
    making_g = row.footprint.score.embodied_g
    assert making_g is not None
    low, high = (units.grams(making_g * factor) for factor in (0.5, 2.0))
    assert lines["CO2e per step of the facility, at PUE 1.5"].startswith("~")
    assert lines["Embodied CO2e per step"].endswith(
        f"[{low}, {high}] (an estimate: 150 kg over 3 years of use)"
    )
    assert set(lines) - set(dict(details(before))) == {
        "CO2e per step of the facility, at PUE 1.5", "Embodied CO2e per step"
    }  # fmt: skip
    said = "Stated of the site: PUE 1.5, 150 kg over 3 years of use for making the device."
    assert any(said in line for line in legend(stated))
    assert not any("Stated of the site" in line for line in legend(plain))


def test_training_to_a_target_has_the_grams_of_its_energy_and_the_site_adds_others() -> None:
    records, site = synthetic.records(), Site(pue=1.5, embodied=Embodied(total_kg=150.0))
    trained = synthetic.to_target(Case(workload="cnn"), (2.0, 3.0, 1.0))
    run, found = replace(records.run, site=site), (*records.measurements, trained)
    row = tabulate.build([replace(records, run=run, measurements=found)], carbon.explicit(100.0))[0].rows[0]
    known = row.quality_run
    assert known is not None
    assert known.footprint is not None
    assert known.co2_g is not None
    assert known.co2_g == pytest.approx(50.0 * 2.0 / 3.6e6 * 100.0)
    assert known.footprint.score.operational_g == pytest.approx(1.5 * known.co2_g)
    assert known.footprint.score.embodied_g == pytest.approx(150_000.0 * 2.0 / (3 * 8760 * 3600))
    told = dict(details(row))
    assert told["CO2e of training to it"] == "2.8 mg"
    assert told["CO2e of training to it of the facility, at PUE 1.5"] == "4.2 mg"
    assert told["Embodied CO2e of training to it"].startswith("~3.2 mg [1.6 mg, 6.3 mg] (an estimate")
    on_gpu = quality_run.find(run, found, replace(row.case, device="cuda"), carbon.explicit(100.0))
    assert on_gpu is not None
    assert on_gpu.footprint is not None
    assert (on_gpu.co2_g, on_gpu.footprint.score.embodied_g) == (known.co2_g, None)


def test_an_estimate_of_its_energy_is_one_of_its_grams() -> None:
    records, trained = synthetic.records(), synthetic.to_target(Case(workload="cnn"), (2.0, 3.0, 1.0))
    guess = tuple(replace(each, provenance=Provenance.ESTIMATED_MODEL) for each in trained.series)
    found = replace(records, measurements=(*records.measurements, replace(trained, series=guess)))
    tables = tabulate.build([found], carbon.explicit(100.0))
    assert dict(details(tables[0].rows[0]))["CO2e of training to it"] == "~2.8 mg"
    assert to_target.co2(tables[0].rows[0]) == "~2.8 mg"


def test_a_site_is_in_the_record(tmp_path: Path) -> None:
    site = Site(pue=1.4, embodied=Embodied(total_kg=150.0, lifetime_years=4.0))
    with store.RunWriter.create(tmp_path, synthetic.run(site=site)) as writer:
        pass
    assert store.load(writer.path).run.site == site
