from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from leanmark.reading import carbon, tabulate
from leanmark.reading.table import Table
from leanmark.record import Case, Cost, Measurement, Provenance, Quality

from . import synthetic

Tables = tuple[Table, ...]

GRID = carbon.explicit(475.0)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return tabulate.build([synthetic.records()], GRID)


def row(table: Table, technique: str, backend: str = "eager", *, sentinel: bool = False) -> Any:
    """The row of a case, as ``Any``: on the way to what is asserted, a ``None`` fails the test by itself."""
    wanted = (technique, backend, sentinel)
    return next(
        row for row in table.rows if (row.case.technique, row.case.backend, row.case.sentinel) == wanted
    )


def rebuilt(measurements: Sequence[Measurement]) -> Tables:
    return tabulate.build([replace(synthetic.records(), measurements=tuple(measurements))], GRID)


def test_one_table_for_each_contest_and_no_row_for_a_model_that_was_only_prepared(tables: Tables) -> None:
    assert [table.title for table in tables] == [
        "cnn · inference · batch 1 · cpu, 1 thread",
        "cnn · training · batch 32 · cpu, 1 thread",
    ]
    assert [(row.case.technique, row.case.backend) for row in tables[0].rows] == [
        ("fp32", "eager"),
        ("prune(ratio=0.5)", "eager"),
        ("bf16", "eager"),
        ("distill", "eager"),
        ("int8", "eager"),
        ("fp32", "onnxruntime"),
        ("prune(ratio=0.5)+int8", "onnxruntime"),
        ("bf16", "onnxruntime"),
    ]


def test_a_technique_is_compared_on_its_own_backend(tables: Tables) -> None:
    pruned = row(tables[0], "prune(ratio=0.5)+int8", "onnxruntime")
    assert pruned.role == "technique"
    assert pruned.latency.comparison.baseline == Case(workload="cnn", backend="onnxruntime")
    assert pruned.latency.comparison.ratio.value == pytest.approx(0.42, rel=0.02)


def test_the_unchanged_model_on_another_backend_is_a_switch(tables: Tables) -> None:
    switch = row(tables[0], "fp32", "onnxruntime")
    assert switch.role == "backend switch"
    assert switch.latency.comparison.baseline == Case(workload="cnn")
    assert switch.latency.comparison.ratio.value == pytest.approx(63 / 187, rel=0.02)


def test_the_baseline_is_compared_to_nothing(tables: Tables) -> None:
    baseline = row(tables[0], "fp32")
    assert (baseline.role, baseline.verdict) == ("baseline", "baseline")
    assert baseline.latency.comparison is None
    assert baseline.working_memory.plain_ratio is None


def test_the_passes_of_a_case_meet_in_its_row(tables: Tables) -> None:
    pruned = row(tables[0], "prune(ratio=0.5)")
    assert pruned.verdict == "better · accuracy inconclusive"
    assert pruned.samples_per_s == pytest.approx(1 / pruned.latency.summary.value)
    assert pruned.peak_memory.summary.value == 201e6
    assert pruned.working_memory.plain_ratio == pytest.approx(0.55)
    assert pruned.energy.summary.provenance is Provenance.ESTIMATED_MODEL
    assert pruned.energy.comparison.ratio is None
    assert pruned.co2_g == pytest.approx(187e-6 * 0.55 * 21.4 / 3.6e6 * 475)
    assert (pruned.model.macs, pruned.reference_model.macs) == (660_000, 1_200_000)
    assert pruned.judged.change.value == pytest.approx(-3 / 450)
    assert pruned.executed["verified"] == {"removed_channels": 48}
    assert pruned.missing == {}


@pytest.mark.parametrize(
    ("technique", "verdict"),
    [("bf16", "same · accuracy same"), ("distill", "better · accuracy worse"), ("int8", "skipped")],
)
def test_speed_is_never_told_without_quality(tables: Tables, technique: str, verdict: str) -> None:
    assert row(tables[0], technique).verdict == verdict


def test_a_model_serves_every_phase_and_batch(tables: Tables) -> None:
    training = row(tables[1], "prune(ratio=0.5)")
    assert training.model.parameters == 15_400
    assert training.samples_per_s == pytest.approx(32 / training.latency.summary.value)


def test_a_chain_costs_what_its_links_cost(tables: Tables) -> None:
    assert row(tables[0], "prune(ratio=0.5)+int8", "onnxruntime").cost.time_s == pytest.approx(2 * 41.3)
    assert row(tables[0], "prune(ratio=0.5)").cost.time_s == pytest.approx(41.3)


def test_the_energy_of_a_chain_is_known_only_if_that_of_every_link_is() -> None:
    counted = Cost(time_s=1.0, energy_j=5.0, energy_provenance=Provenance.MEASURED_COUNTER)
    found = [
        replace(one, cost=counted) if one.case.technique == "prune(ratio=0.5)" and one.cost else one
        for one in synthetic.measurements()
    ]
    chain = row(rebuilt(found)[0], "prune(ratio=0.5)+int8", "onnxruntime").cost
    assert (chain.energy_j, chain.energy_reason) == (None, "no meter of energy is available")
    assert row(rebuilt(found)[0], "prune(ratio=0.5)").cost == counted


def test_what_is_missing_says_why(tables: Tables) -> None:
    assert row(tables[1], "bf16").missing == {"energy": "skipped: the time budget ended"}
    invalid = row(tables[0], "bf16", "onnxruntime")
    assert (invalid.status, invalid.verdict) == ("invalid", "invalid")
    assert invalid.reason == "no operator computed in bfloat16 [0 of 8]"
    assert invalid.latency is None


def test_doubts_reach_their_row(tables: Tables) -> None:
    codes = [finding.code for finding in row(tables[1], "prune(ratio=0.5)").findings]
    assert codes == ["not-steady"]


def test_without_an_intensity_there_is_no_co2() -> None:
    table = tabulate.build([synthetic.records()])[0]
    assert row(table, "fp32").energy is not None
    assert row(table, "fp32").co2_g is None


def test_without_a_baseline_there_is_no_verdict() -> None:
    found = [one for one in synthetic.measurements() if one.case.technique != "fp32"]
    pruned = row(rebuilt(found)[0], "prune(ratio=0.5)")
    assert pruned.verdict == "no baseline"
    assert pruned.latency.summary.value > 0


def test_an_invalid_baseline_makes_its_rows_invalid() -> None:
    found = [
        synthetic.stopped(one.case, "invalid", "it ran on two threads")
        if one.case == Case(workload="cnn") and one.pass_name == "latency"
        else one
        for one in synthetic.measurements()
    ]
    pruned = row(rebuilt(found)[0], "prune(ratio=0.5)")
    assert pruned.verdict == "invalid"
    assert "it ran on two threads" in pruned.latency.comparison.reason


def test_what_different_meters_saw_is_not_divided_and_the_rest_is_told() -> None:
    found = [
        replace(one, series=tuple(replace(each, meter="torch_cuda") for each in one.series))
        if one.pass_name == "memory" and one.case.backend == "eager"
        else one
        for one in synthetic.measurements()
    ]
    switch = row(rebuilt(found)[0], "fp32", "onnxruntime")
    assert switch.working_memory.comparison is None
    assert switch.latency.comparison.ratio is not None


def test_alone_a_backend_is_its_own_baseline() -> None:
    found = [one for one in synthetic.measurements() if one.case.backend == "onnxruntime"]
    assert row(rebuilt(found)[0], "fp32", "onnxruntime").role == "baseline"


def test_regression_is_not_judged() -> None:
    r2 = Quality(metric="r2", value=0.912, count=450)
    found = [replace(one, quality=r2) if one.quality else one for one in synthetic.measurements()]
    pruned = row(rebuilt(found)[0], "prune(ratio=0.5)")
    assert pruned.judged.change is None
    assert pruned.verdict == "better · r2 not judged"


def test_of_a_pass_made_twice_outside_a_contest_the_later_counts() -> None:
    again = replace(synthetic.passes(Case(workload="cnn", technique="bf16"), 400e-6)[0], contest=None)
    table = rebuilt([*synthetic.measurements(), again])[0]
    assert row(table, "bf16").latency.summary.value == pytest.approx(400e-6, rel=0.02)


def test_runs_never_share_a_table() -> None:
    one = synthetic.records()
    other = replace(one, run=synthetic.run(id="beef"))
    assert [table.run.id for table in tabulate.build([one, other])] == ["7f3a", "7f3a", "beef", "beef"]


def test_nothing_measured_is_no_table() -> None:
    assert rebuilt([]) == ()


def with_sentinel(ratio: float) -> list[Measurement]:
    """The synthetic records and a sentinel of the first contest that is ``ratio`` times as slow."""
    found = list(synthetic.measurements())
    baseline = next(one for one in found if one.case.is_baseline and one.pass_name == "latency")
    blocks = tuple(
        replace(block, value=block.value * ratio * (1 + 1e-4 * block.round))
        for block in baseline.series[0].blocks
    )
    series = (replace(baseline.series[0], blocks=blocks),)
    return [*found, replace(baseline, case=replace(baseline.case, sentinel=True), series=series)]


def test_a_sentinel_that_passes_states_the_noise_and_changes_nothing() -> None:
    table = rebuilt(with_sentinel(1.0))[0]
    assert [one.case.label for one in table.rows][:2] == ["fp32", "fp32-again"]
    assert row(table, "fp32", sentinel=True).verdict == "A/A"
    assert row(table, "distill").verdict == "better · accuracy worse"


def test_a_sentinel_that_fails_takes_every_verdict_of_the_run() -> None:
    tables = rebuilt(with_sentinel(1.2))
    assert row(tables[0], "fp32", sentinel=True).verdict == "A/A failed"
    others = [one.latency for table in tables for one in table.rows if one.role != "sentinel"]
    compared = [one.comparison for one in others if one and one.comparison]
    assert compared
    assert {one.verdict for one in compared} == {"inconclusive"}
    assert all("between equal code" in (one.reason or "") for one in compared)


def test_percentiles_come_from_single_steps_and_are_refused_where_they_are_few() -> None:
    found = [
        replace(one, samples_s=tuple(1e-6 * n for n in range(1, 101)))
        if one.series and one.case.is_baseline
        else one
        for one in synthetic.measurements()
    ]
    by_name = {one.name: one for one in row(rebuilt(found)[0], "fp32").percentiles}
    assert by_name["p50"].interval.value == pytest.approx(50.5e-6)
    assert by_name["p90"].interval is not None
    assert by_name["p99"].refusal == "needs n ≥ 662"
    assert row(rebuilt(found)[0], "distill").percentiles == ()
