"""`leanmark carbon`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import cli, store
from leanmark.intensity import Intensity
from leanmark.reading import carbon
from leanmark.record import Case, Cost, Measurement, Provenance, Run

from . import synthetic


def written(folder: Path, run: Run | None = None) -> Path:
    records = synthetic.records()
    with store.RunWriter.create(folder, run or records.run) as writer:
        for one in records.measurements:
            cost = one.cost and Cost(
                time_s=41.3, energy_j=880.0, energy_provenance=Provenance.ESTIMATED_MODEL
            )
            writer.append(replace(one, cost=cost))
        writer.append(synthetic.to_target(Case(workload="cnn"), (2.0, 3.0, 1.0)))
    return writer.path


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["leanmark", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_old_records_are_computed_anew_with_another_grid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path)
    before = path.read_bytes()
    assert typed(monkeypatch, "carbon", str(path), "--intensity", "100") == 0
    text = " ".join(capsys.readouterr().out.split())
    # 187 us at 21.4 W for 1000 inferences is 4.00 J; at 100 g/kWh that is 111 ug
    assert "fp32 eager ~4.00 J ~111 µg" in text
    assert "cnn fp32 making it once ~880 J ~24 mg" in text
    assert text.count("cnn fp32 training to accuracy 97.0 %, mean of 3 runs 100 J 2.8 mg") == 1
    assert "E: gross energy of all that the meter covers (estimated model, measured counter)." in text
    assert "cnn/training/b32/fp32/eager/cpu/t1" in text  # whose energy was not metered
    assert "no grams of a step: skipped: the time budget ended" in text
    assert "100 gCO2e/kWh (as given, period not stated; stated by the user; basis: not stated)" in text
    assert "~ is an estimate" in text
    assert "PUE: not applied" in text
    assert "no SCI; --embodied adds it" in text
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def trained_only(folder: Path, *measurements: Measurement) -> Path:
    with store.RunWriter.create(folder, synthetic.run()) as writer:
        for one in measurements:
            writer.append(one)
    return writer.path


def carbon_of(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    assert typed(monkeypatch, "carbon", str(path), "--intensity", "100", *words) == 0
    return " ".join(capsys.readouterr().out.split())


def test_training_alone_has_grams_of_a_step_of_an_epoch_and_of_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = Case(workload="cnn", phase="training", batch=32)
    made = replace(
        synthetic.prepared(case),
        cost=Cost(
            time_s=40.0,
            energy_j=720.0,
            energy_provenance=Provenance.MEASURED_COUNTER,
            epochs=10,
            steps=200,
        ),
    )
    runs = synthetic.to_target(case, (2.0, 3.0, 1.0))  # 50 W, and 2 epochs each
    path = trained_only(tmp_path, made, *synthetic.passes(case, 1e-3), runs)
    text = carbon_of(path, monkeypatch, capsys)
    for row in (
        "cnn fp32 · eager a step of 32 samples ~21.4 mJ ~594 ng",
        "cnn fp32 making it once 720 J 20 mg",
        "cnn fp32 of it, each of 10 epochs 72.0 J 2.0 mg",
        "cnn fp32 of it, each of 200 steps 3.60 J 100 µg",
        "cnn fp32 training to accuracy 97.0 %, mean of 3 runs 100 J 2.8 mg",
        "cnn fp32 of it, an epoch with its look at the quality 50.0 J 1.4 mg",
    ):
        assert row in text
    # 315.36 kg a year is 10 mg a second
    full = carbon_of(path, monkeypatch, capsys, "--embodied", "315.36", "--lifetime", "1")
    assert "mean of 3 runs 100 J 2.8 mg ~20 mg [10 mg, 40 mg] ~23 mg" in full


def test_runs_to_a_target_are_told_where_no_step_was_metered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = synthetic.to_target(Case(workload="cnn"), (2.0, 3.0, 1.0))
    text = carbon_of(trained_only(tmp_path, runs), monkeypatch, capsys)
    assert "mean of 3 runs 100 J 2.8 mg" in text
    assert "R, the functional unit" not in text
    assert "no grams of a step: this pass was not run" in text


def test_what_has_no_grams_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = Case(workload="cnn", phase="training", batch=32)
    unmetered = [one for one in synthetic.passes(case, 1e-3) if one.pass_name != "energy"]
    broke = synthetic.stopped(case, "skipped", "a meter counts nothing here", "energy")
    missed = synthetic.stopped(
        replace(case, batch=1), "skipped", "accuracy 97.0 % was not reached", "quality_run"
    )
    path = trained_only(tmp_path, synthetic.prepared(case), *unmetered, broke, missed)
    text = carbon_of(path, monkeypatch, capsys)
    for part in (
        "No energy was metered in these records, so there is no CO2e to state.",
        f"{case.id}: no grams of a step: skipped: a meter counts nothing here",
        "cnn fp32: no grams of making it: no meter of energy is available",
        "cnn fp32: no grams of training it to a target: skipped: accuracy 97.0 % was not reached",
    ):
        assert part in text


def test_pue_and_embodied_make_a_full_score(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["--intensity", "100", "--pue", "1.5", "--embodied", "315.36", "--lifetime", "1"]
    assert typed(monkeypatch, "carbon", str(written(tmp_path)), *words) == 0
    text = " ".join(capsys.readouterr().out.split())
    # 315.36 kg a year is 10 mg a second: 0.187 s reserve 1.9 mg, between half and double of that
    assert "fp32 eager ~4.00 J ~167 µg ~1.9 mg [940 µg, 3.8 mg] ~2.1 mg" in text
    assert "PUE: 1.5, as stated" in text
    assert "315.36 kg over 1 years of use" in text


def test_without_a_zone_the_world_stands_in_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert typed(monkeypatch, "carbon", str(written(tmp_path))) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "475 gCO2e/kWh (world average, 2018;" in text
    assert "a stand-in: state the grid with --zone or --intensity" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pue", "0.9"], "between 1 and 5"),
        (["--pue", "12"], "between 1 and 5"),
        (["--embodied", "0"], "above 0"),
        (["--lifetime", "4"], "give those too"),
        (["--zone", "Germny"], "Did you mean Germany"),
        (["--intensity", "0"], "above 0 and at most 2000"),
        (["--zone", "FRA", "--intensity", "50"], "not both"),
    ],
)
def test_what_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    assert typed(monkeypatch, "carbon", str(written(tmp_path)), *words) == 2
    assert message in capsys.readouterr().err


def test_the_grid_of_a_run_is_recorded_in_full_and_used_until_another_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    france = carbon.for_zone("FRA")
    path = written(tmp_path, replace(synthetic.run(), intensity=france))
    stored = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])["intensity"]
    assert stored == {
        "value_g_per_kwh": france.value_g_per_kwh,
        "zone": "France (FRA)",
        "period": france.period,
        "source": france.source,
        "basis": "average, location-based, generation",
    }
    run = store.load(path).run
    assert carbon.of(run, None) == france
    assert carbon.of(run, carbon.for_zone("SWE")).zone == "Sweden (SWE)"
    assert carbon.of(replace(run, intensity=None), None).is_world_average
    for command in ("show", "carbon"):
        assert typed(monkeypatch, command, str(path)) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "France (FRA)" in text
        assert "world average" not in text


def test_an_intensity_knows_the_world_average() -> None:
    stated = Intensity(value_g_per_kwh=1.0, zone="here", period="now", source="me", basis="average")
    assert not stated.is_world_average
    assert str(stated) == "1 gCO2e/kWh (here, now; me; basis: average)"
