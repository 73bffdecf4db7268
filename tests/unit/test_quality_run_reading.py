"""What is read from training runs to a quality target, and what the report says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leanmark import store
from leanmark.meters.base import Meter
from leanmark.plan import FULL, QUICK
from leanmark.reading import quality_run as reading
from leanmark.reading import tabulate
from leanmark.record import BASELINE, DOMAIN_LOST, Finding, Measurement
from leanmark.report.console import rendered
from leanmark.report.details import details
from leanmark.store import RunWriter

from . import synthetic
from .quality_trials import CASE, REACHED, RUN, Guess, Steady, play, played, trained


def test_reading_finds_the_run_of_a_baseline_and_sums_it_up() -> None:
    one = played(*REACHED, meter=Steady())
    found = reading.find(RUN, [one], replace(CASE, phase="inference", batch=32, backend="onnxruntime"))
    assert found is not None
    assert found.time is not None
    assert found.energy is not None
    assert (found.metric, found.target, found.epochs, found.longest) == ("accuracy", 0.9, (2, 3, 1), 4)
    assert (found.time.summary.value, found.time.least, found.time.most) == (2.0, 1.0, 3.0)
    assert found.time.summary.interval is None  # three runs are too few for one
    assert found.energy.summary.value == pytest.approx(200.0)
    assert found.energy.doubt == pytest.approx(200.0 * math.hypot(0.01, 0.05))
    assert found.looking == pytest.approx(0.1)
    assert reading.find(RUN, [one], replace(CASE, technique="prune")) is None
    assert reading.find(RUN, [one], replace(CASE, workload="other")) is None
    assert reading.find(RUN, [one], replace(CASE, commit="abc1234")) is None


def compared(
    baseline: Sequence[float], technique: Sequence[float], meter: Meter[Any] | None = None
) -> tuple[dict[str, str], str]:
    """Details of the technique's row, where runs took so many seconds, and the terminal's text."""
    pairs = list(zip(baseline, technique, strict=True))
    turns = [pair if seed % 2 == 0 else pair[::-1] for seed, pair in enumerate(pairs)]
    replies = [trained(0.5, 0.95, time_s=one) for turn in turns for one in turn]
    name = "prune(ratio=0.5)"
    plan = FULL if len(pairs) == FULL.target_seeds else QUICK
    records, _ = play(*replies, chains=(BASELINE, name), plan=plan, meter=meter)
    return lines(*records.values(), technique=name)


def test_a_technique_is_compared_seed_by_seed() -> None:
    told, _ = compared((1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 1.02, 1.5, 1.96, 2.5), Steady())
    label = "Training to accuracy 90.0 %"
    assert "; 0.50× [0.49, 0.51] of fp32's, better; 2 of at most 4 epochs" in told[label]
    # both sides' ±1 % by the meter are added whole to the interval of the ratio
    assert told["Energy of training to it"].endswith("; 0.50× [0.48, 0.52] of fp32's, better")


def test_training_on_another_device_than_the_rows_is_told() -> None:
    tables = tabulate.build([synthetic.records()])
    row = next(row for table in tables for row in table.rows if row.role == "baseline")
    known = reading.find(RUN, [played(*REACHED)], CASE)
    assert known is not None
    label = "Training to accuracy 90.0 %"
    for device, told in (
        ("cpu", ", on the processor, where models are made; 1 to 3 of"),
        ("cuda", " s; 1 to"),
    ):
        trained_on = replace(known, device=device)
        gpu = replace(row, quality_run=trained_on, case=replace(row.case, device="cuda"))
        assert told in dict(details(gpu))[label]


def test_few_seeds_give_a_ratio_without_a_verdict() -> None:
    told, _ = compared((1.0, 2.0, 3.0), (0.5, 1.0, 1.5))
    assert (
        "; 0.50×‡ of fp32's, and an interval needs 5 seeds of both; " in told["Training to accuracy 90.0 %"]
    )


def test_energy_that_is_without_a_part_says_so_and_is_compared_to_its_like() -> None:
    replies = [trained(0.95, time_s=float(seconds)) for seconds in (2, 1, 1, 2, 2, 1, 1, 2, 2, 1)]
    records, _ = play(*replies, chains=(BASELINE, "prune(ratio=0.5)"), plan=FULL, meter=Steady())
    whole, other = records.values()
    lost = Finding(code=DOMAIN_LOST, message="it is stuck", without="package-0/dram")
    part = replace(other, findings=(*other.findings, lost))
    told = {}
    for name, sides in {"one": (whole, part), "both": (replace(whole, findings=(lost,)), part)}.items():
        details_of_row, _ = lines(*sides, technique="prune(ratio=0.5)")
        told[name] = details_of_row["Energy of training to it"]
    assert told["one"].endswith(
        "that of judging included, without package-0/dram; no ratio: the energies are not of the same parts: "
        "its own is without package-0/dram"
    )
    assert ", without package-0/dram; 0.50× [" in told["both"]


def test_one_run_has_no_range() -> None:
    told, _ = lines(played(*REACHED[:1], plan=replace(QUICK, target_seeds=1)))
    assert told["Training to accuracy 90.0 %"].startswith("2.00 s, one run; 2 of at most 4 epochs")


def test_estimates_have_no_ratio() -> None:
    told, _ = compared((1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 1.0, 1.5, 2.0, 2.5), Guess())
    joules = told["Energy of training to it"]
    assert joules.startswith("~150 J")
    assert joules.endswith("5 runs of 50.0 J to 250 J, that of judging included")


def test_a_share_that_is_there_is_not_told_as_nothing() -> None:
    tables = tabulate.build([synthetic.records()])
    row = next(row for table in tables for row in table.rows if row.role == "baseline")
    found = reading.find(RUN, [played(*REACHED)], CASE)
    assert found is not None
    known = replace(found, looking=0.003, earlier=0.004)
    told = dict(details(replace(row, quality_run=known)))["Training to accuracy 90.0 %"]
    assert told.endswith(
        "took under 1% of the time; under 1% went into the trained model that they began with"
    )


def lines(*made: Measurement, technique: str = BASELINE) -> tuple[dict[str, str], str]:
    """The details of a row in eager PyTorch, and the terminal's text."""
    records = synthetic.records()
    workload = records.measurements[0].case.workload
    ours = tuple(replace(one, case=replace(one.case, workload=workload)) for one in made)
    tables = tabulate.build([replace(records, measurements=(*records.measurements, *ours))])
    row = next(
        row
        for table in tables
        for row in table.rows
        if (row.case.technique, row.case.backend, row.case.sentinel) == (technique, "eager", False)
    )
    return dict(details(row)), rendered(tables, width=400, color=False)


def test_the_report_says_what_training_to_the_target_took() -> None:
    told, _ = lines(played(*REACHED, meter=Steady()))
    assert told["Training to accuracy 90.0 %"] == (
        "2.00 s, 3 runs of 1.00 s to 3.00 s; 1 to 3 of at most 4 epochs, judged at the end of each, "
        "which took 10% of the time"
    )
    assert told["Energy of training to it"] == (
        "200 J ±10.2 J by the meter, 3 runs of 100 J to 300 J, that of judging included"
    )


def test_five_runs_have_an_interval() -> None:
    five = [trained(0.5, 0.95, time_s=time_s) for time_s in (1.0, 2.0, 3.0, 4.0, 5.0)]
    told, _ = lines(played(*five, plan=FULL))
    # mean 3 and t(0.975, 4) * sqrt(2.5) / sqrt(5) = 2.776 * 0.7071
    assert told["Training to accuracy 90.0 %"].startswith(
        "3.00 s [1.04 s, 4.96 s], 5 runs of 1.00 s to 5.00 s; 2 of at most 4 epochs"
    )
    assert told["Energy of training to it"].endswith("no meter of energy is available")


def test_the_report_says_that_a_target_was_not_reached_and_states_no_number() -> None:
    told, text = lines(played(REACHED[0], trained(0.5, 0.6, 0.89, 0.88), REACHED[2], meter=Steady()))
    reason = "accuracy 90.0 % was not reached in 4 epochs by 1 of 3 runs, at best 89.0 %"
    assert told["Training to accuracy 90.0 %"] == reason
    assert "Energy of training to it" not in told
    assert reason in text


def test_the_record_is_read_from_disk_as_it_was_written(tmp_path: Path) -> None:
    one = replace(played(*REACHED, meter=Steady()), run="7f3a")
    run = synthetic.run(plan=replace(QUICK, target=0.9))
    with RunWriter.create(tmp_path, run) as writer:
        writer.append(one)
    found = store.load(writer.path)
    assert (found.run.plan.target, found.run.plan.target_seeds) == (0.9, 3)
    assert reading.find(RUN, found.measurements, CASE) == reading.find(RUN, [one], CASE)
