from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leanmark.reading import carbon, tabulate
from leanmark.reading.table import Row
from leanmark.record import Case, Cost, Measurement, ModelFacts, Provenance
from leanmark.report import cells, html
from leanmark.report.details import details
from leanmark.store import Records

from . import synthetic
from .energy_stage import Stage, gpu, processor

CNN = Case(workload="cnn")
CASES = (CNN, replace(CNN, technique="prune(ratio=0.5)"))
HALF = ((1e-3, 300.0), (5e-4, 300.0))
TRAINED = Cost(
    time_s=12.0,
    energy_j=3000.0,
    energy_provenance=Provenance.MEASURED_COUNTER,
    energy_uncertainty_j=150.0,
    epochs=20,
    steps=900,
)
PRUNED = Cost(
    time_s=2.0,
    energy_j=600.0,
    energy_provenance=Provenance.MEASURED_COUNTER,
    energy_uncertainty_j=30.0,
)


def prepared(case: Case, cost: Cost, tokens: int | None = None) -> Measurement:
    model = ModelFacts(parameters=28_000, macs=1_200_000, size_bytes=118_000, tokens=tokens)
    return replace(synthetic.prepared(case), cost=cost, model=model)


def rows(stage: Stage, batch: int = 1, tokens: int | None = None, **plan: object) -> list[Row]:
    """The baseline and a pruned model of half its latency, whose energy was metered on ``stage``."""
    cases = [replace(case, batch=batch) for case in CASES]
    sampling = replace(synthetic.run().plan, energy_rounds=6, **plan)  # type: ignore[arg-type]
    found = stage.play(stage.entrants(*HALF, cases=cases), sampling)
    measured = [prepared(CASES[0], TRAINED, tokens), prepared(CASES[1], PRUNED, tokens)]
    for case, energy, step_s in zip(cases, found, (1e-3, 5e-4), strict=True):
        timed = synthetic.passes(case, step_s)[0]
        measured += [timed, replace(energy, work=timed.work)]
    records = Records(path=Path("x.jsonl"), run=synthetic.run(), measurements=tuple(measured))
    (table,) = tabulate.build([records], carbon.explicit(100.0))
    assert "Break-even" in html.render([table])
    return list(table.rows)


def told(row: Row) -> dict[str, str]:
    return dict(details(row))


def test_measured_energy_is_told_with_its_uncertainty_and_where_it_is_from() -> None:
    with gpu() as stage:
        baseline, pruned = rows(stage)
    lines = told(baseline)
    assert lines["Energy per step"].endswith("(measured counter, nvml.total_energy)")
    assert lines["Uncertainty of it"].endswith("J; of it the sensor's gain, 10%, cancels in ratios here")
    assert cells.energy(baseline) == "300 mJ ±10%"
    assert lines["Mean power"] == "300 W"
    assert lines["Idle power, models loaded"].startswith("60.0 W before, 60.0 W after")
    assert lines["Energy net of idle with models loaded (diagnostic)"].startswith("240 mJ ±")
    assert told(pruned)["Energy ratio"].startswith("0.50×")
    assert "better" in told(pruned)["Energy ratio"]


def test_a_training_run_is_told_per_run_epoch_and_step(tmp_path: Path) -> None:
    lines = told(rows(processor(tmp_path))[0])
    assert lines["Training run"] == "12.0 s for 20 epochs, 900 steps, to accuracy 96.9 %; 3.00 kJ ±150 J"
    assert lines["Energy of training it"] == "150 J an epoch, 3.33 J a step"


def test_a_technique_pays_back_in_time_and_in_energy(tmp_path: Path) -> None:
    lines = told(rows(processor(tmp_path))[1])
    assert lines["Cost of making it, once"] == "2.00 s; 600 J ±30.0 J"
    # 2 s less the 20 ms that it starts faster over 0.5 ms, and 600 J over 150 mJ
    assert lines["Break-even in time"].startswith("3.92 k inferences [")
    assert lines["Break-even in energy"].startswith("4.00 k inferences [")
    assert lines["Break-even in energy"].endswith(
        "] pay back the 600 J that it cost (600 J to make, without its first call, of which no counter told)"
    )


def test_joules_of_two_devices_in_one_break_even_are_told_apart(tmp_path: Path) -> None:
    row = rows(processor(tmp_path))[1]
    said = "its host draws meanwhile, as while it compiles in a first call, is left out"
    assert said not in told(row)["Break-even in energy"]
    on_gpu = told(replace(row, case=replace(row.case, device="cuda")))
    assert on_gpu["Break-even in energy"].endswith(said)
    assert said not in on_gpu["Break-even in time"]


def test_a_sequence_has_energy_per_sample_and_per_token(tmp_path: Path) -> None:
    lines = told(rows(processor(tmp_path), batch=4, tokens=8)[0])
    assert lines["Energy per sample"] == "75.0 mJ"
    assert lines["Energy per token"] == "9.37 mJ (8 tokens a sample)"


def test_energy_at_a_request_rate_has_its_own_ratio() -> None:
    with gpu() as stage:
        _, pruned = rows(stage, request_rate=100.0)
    lines = told(pruned)
    assert lines["Energy per request at 100 requests/s"].startswith("720 mJ")
    assert lines["Energy ratio at that rate"].startswith("0.86×")


def test_an_estimate_warns_at_the_number_and_pays_nothing_back() -> None:
    (table, _) = tabulate.build([synthetic.records()], carbon.explicit(100.0))
    pruned = next(row for row in table.rows if row.case.technique == "prune(ratio=0.5)")
    lines = told(pruned)
    assert lines["Energy per step"].startswith("~2.20 mJ (an estimate: it follows time")
    assert lines["Break-even in energy"] == "not measured: no meter of energy is available"
    assert lines["Break-even in time"].endswith(
        "pay back the 41.3 s that it cost (41.3 s to make, 3.37 ms less in its first call, "
        "which is counted once)"
    )
    assert cells.energy(pruned) == "~2.20 mJ"


@pytest.mark.parametrize(("phase", "technique"), [("training", "bf16"), ("inference", "fp32")])
def test_training_and_the_baseline_break_even_with_nothing(phase: str, technique: str) -> None:
    tables = tabulate.build([synthetic.records()], carbon.explicit(100.0))
    table = next(one for one in tables if one.case.phase == phase)
    row = next(one for one in table.rows if one.case.technique == technique)
    assert not any(label.startswith("Break-even") for label in told(row))
