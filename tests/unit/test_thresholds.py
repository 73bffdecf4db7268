"""Which differences count: asked for, recorded, and applied when records are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import plan, store, thresholds
from leanmark.errors import UnknownName, UsageError
from leanmark.reading import gate, table, tabulate
from leanmark.record import Run, SamplingPlan
from leanmark.report import notes
from leanmark.thresholds import Thresholds

from . import synthetic


def read(asked: Thresholds) -> tuple[table.Table, ...]:
    """The synthetic records of a run that was asked for these thresholds."""
    records = synthetic.records()
    sampling = plan.with_thresholds(records.run.plan, asked)
    return tabulate.build([replace(records, run=replace(records.run, plan=sampling))])


def row(tables: tuple[table.Table, ...], technique: str) -> table.Row:
    return next(one for one in tables[0].rows if one.case.technique == technique and one.latency)


def test_without_a_word_it_is_two_percent_and_one_point() -> None:
    usual = thresholds.parse()
    assert (usual.margin("latency"), usual.margin("memory"), usual.margin("energy")) == (0.02, 0.02, 0.02)
    assert usual.margin("accuracy") == 0.01
    assert usual.floor("latency", 1e-6) == 0.0


def test_margins_and_floors_are_read_by_metric_and_unit() -> None:
    asked = thresholds.parse(["latency=1%", "accuracy=0.5%"], ["latency=100ns", "memory=2MiB"])
    assert asked.margin("latency") == 0.01
    assert asked.margin("accuracy") == 0.005
    assert asked.margin("memory") == 0.02
    assert asked.floor("latency", 1e-6) == pytest.approx(0.1)
    assert asked.floor("memory", 4 * 2**20) == 0.5


@pytest.mark.parametrize(
    ("margins", "floors", "complaint"),
    [
        (["latency"], [], "write METRIC=1%, for example latency=1%"),
        (["latency=1"], [], "a margin is a percentage such as 2.5%, above 0 and below 100"),
        (["latency=nan%"], [], "above 0 and below 100"),
        (["latency=0%"], [], "above 0 and below 100"),
        ([], ["latency=3"], "a floor of latency is an amount in ns, us"),
        ([], ["memory=3ns"], "a floor of memory is an amount in B, kB"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(
    margins: list[str], floors: list[str], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        thresholds.parse(margins, floors)


def test_an_unknown_metric_is_told_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean latency"):
        thresholds.parse(["latncy=1%"])
    with pytest.raises(UnknownName, match="accuracy"):
        thresholds.parse([], ["accuracy=1%"])


@pytest.mark.parametrize(
    ("metric", "kind"),
    [("latency_s", "latency"), ("working_memory_bytes", "memory"), ("energy_at_rate_j", "energy")],
)
def test_a_metric_is_judged_by_its_unit(metric: str, kind: str) -> None:
    assert thresholds.kind_of(metric) == kind


def test_a_wider_margin_takes_a_verdict_away() -> None:
    usual, wide = (read(thresholds.parse(asked)) for asked in ([], ["latency=60%"]))
    before, after = (row(tables, "prune(ratio=0.5)").latency for tables in (usual, wide))
    assert before is not None and before.comparison is not None
    assert after is not None and after.comparison is not None
    assert (before.comparison.verdict, before.comparison.margin) == ("better", 0.02)
    assert (after.comparison.verdict, after.comparison.margin) != ("better", 0.02)
    assert after.comparison.margin == 0.6


def test_a_difference_below_the_floor_never_counts() -> None:
    latency = row(read(thresholds.parse([], ["latency=10s"])), "prune(ratio=0.5)").latency
    assert latency is not None and latency.comparison is not None
    assert latency.comparison.verdict == "same"
    assert latency.comparison.floor == latency.comparison.margin > 1
    tables = read(thresholds.parse([], ["latency=10s"]))
    assert [one.verdict for one in gate.rulings(tables, gate.parse("worse:latency=1%"))].count("worse") == 0


def test_accuracy_is_judged_by_its_own_margin() -> None:
    judged = row(read(thresholds.parse(["accuracy=50%"])), "distill").judged
    assert judged is not None
    assert judged.verdict == "same"


def test_a_rule_without_a_margin_has_that_of_the_run() -> None:
    asked = thresholds.parse(["latency=1%"])
    assert [one.margin for one in gate.parse("worse:latency,accuracy=3%", asked)] == [0.01, 0.03]
    assert [one.margin for one in gate.parse("worse:latency")] == [0.02]


def test_intervals_are_to_be_half_the_margin_wide() -> None:
    asked = plan.with_thresholds(plan.QUICK, thresholds.parse(["latency=1%"]))
    assert (plan.QUICK.precision, asked.precision) == (0.01, 0.005)


def test_the_legend_says_which(tmp_path: Path) -> None:
    text = "\n".join(notes.legend(read(thresholds.parse(["latency=1%", "accuracy=3%"], ["memory=1MB"]))))
    assert "Margins: 1 % for latency, 2 % for memory and energy, 3 percentage points for accuracy." in text
    assert "Less than 1.0 MB of memory never counts." in text


def test_they_are_in_the_record(tmp_path: Path) -> None:
    asked = thresholds.parse(["latency=1%"], ["latency=100ns"])
    run = synthetic.run(plan=plan.with_thresholds(synthetic.run().plan, asked))
    with store.RunWriter.create(tmp_path, run) as writer:
        path = writer.path
    found: Run = store.load(path).run
    assert found.plan.thresholds == asked
    assert isinstance(found.plan, SamplingPlan)
