from __future__ import annotations

from dataclasses import replace

import pytest

from leanmark.errors import OutOfTime, UnknownName, UsageError
from leanmark.reading import across, carbon, gate, tabulate
from leanmark.reading.gate import Rule, Ruling
from leanmark.record import Provenance

from . import synthetic


def ruled(text: str, **changes: object) -> dict[tuple[str, str], Ruling]:
    records = replace(synthetic.records(), **changes)  # type: ignore[arg-type]
    tables = tabulate.build([records], carbon.world_average())
    found = gate.rulings(tables[:1], gate.parse(text))
    return {(one.case.technique, one.case.backend): one for one in found}


def test_rules_are_read_with_their_margins() -> None:
    assert gate.parse("worse:latency=2.5%, accuracy") == (
        Rule(metric="latency", margin=0.025),
        Rule(metric="accuracy", margin=0.01),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latency", "write worse:METRIC"),
        ("worse:", "write worse:METRIC"),
        ("better:latency", "write worse:METRIC"),
        ("worse:latency=fast", "a margin is a percentage"),
        ("worse:latency=2.5", "a margin is a percentage"),
        ("worse:latency=0%", "above 0 and below 100"),
    ],
)
def test_what_is_no_rule_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gate.parse(text)


def test_an_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean latency"):
        gate.parse("worse:latancy")


def test_only_what_lost_accuracy_beyond_its_interval_is_worse() -> None:
    found = ruled("worse:accuracy")
    assert found["distill", "eager"].verdict == "worse"
    assert found["bf16", "eager"].verdict == "same"
    assert found["prune(ratio=0.5)", "eager"].verdict == "inconclusive"


def test_a_verdict_says_by_how_much() -> None:
    assert ruled("worse:accuracy")["distill", "eager"].reason == "change −8.4 [−11.2, −5.6] points"
    assert ruled("worse:latency")["bf16", "eager"].reason == "ratio 1.00× [0.99, 1.02]"


def test_a_fraction_of_a_percent_can_be_the_margin() -> None:
    assert ruled("worse:accuracy=20%")["distill", "eager"].verdict == "same"
    assert ruled("worse:latency=0.1%")["bf16", "eager"].verdict in ("inconclusive", "worse")
    assert ruled("worse:latency=5%")["bf16", "eager"].verdict == "same"


def test_an_estimate_enters_no_gate() -> None:
    found = ruled("worse:energy")["distill", "eager"]
    assert (found.verdict, found.reason) == ("inconclusive", "an estimate enters no gate")


def test_measured_energy_does() -> None:
    measured = tuple(
        replace(
            one,
            series=tuple(replace(series, provenance=Provenance.MEASURED_COUNTER) for series in one.series),
        )
        for one in synthetic.measurements()
    )
    assert ruled("worse:energy", measurements=measured)["distill", "eager"].reason != (
        "an estimate enters no gate"
    )


def test_what_is_invalid_or_failed_cannot_pass_and_what_is_skipped_is_not_asked() -> None:
    found = ruled("worse:latency")
    assert found["bf16", "onnxruntime"].verdict == "invalid"
    assert ("int8", "eager") not in found


def test_baselines_and_sentinels_are_not_judged() -> None:
    assert ("fp32", "eager") not in ruled("worse:latency")


def test_stored_runs_are_judged_case_by_case() -> None:
    older = synthetic.records()
    slower = tuple(
        replace(
            one,
            contest=None,
            series=tuple(
                replace(
                    series,
                    blocks=tuple(replace(block, value=1.5 * block.value) for block in series.blocks),
                )
                if series.metric == "latency_s"
                else series
                for series in one.series
            ),
        )
        for one in older.measurements
    )
    newer = replace(older, measurements=slower)
    rules = gate.parse("worse:latency,energy,accuracy")
    found = list(gate.rulings_across(across.compare_runs(older, newer), rules))
    latency = {
        one.case.technique: one for one in found if one.rule.metric == "latency" and one.case.batch == 1
    }
    assert latency["distill"].verdict == "worse"
    assert {one.reason for one in found if one.rule.metric == "energy"} == {
        "an estimate enters no gate",
        "not measured in both runs",
    }
    same = gate.rulings_across(across.compare_runs(older, older), gate.parse("worse:latency"))
    assert "worse" not in {one.verdict for one in same}


def test_a_case_that_no_longer_works_does_not_pass_for_lack_of_a_number() -> None:
    older = synthetic.records()
    broken = tuple(
        replace(one, status="failed", reason="it raised", series=())
        if one.case.technique == "distill" and one.pass_name == "latency"
        else one
        for one in older.measurements
    )
    found = list(gate.since(older, replace(older, measurements=broken), gate.parse("worse:latency")))
    assert {(one.verdict, one.reason) for one in found if one.case.technique == "distill"} == {
        ("invalid", "failed: it raised")
    }


def test_a_baseline_that_failed_and_a_case_without_its_turn_are_told() -> None:
    records = synthetic.records()
    stopped = {
        "fp32": replace(records.measurements[0], status="failed", reason="it raised", series=()),
        "bf16": replace(
            records.measurements[0], status="skipped", reason=f"unsupported: {OutOfTime()}", series=()
        ),
    }
    changed = tuple(
        replace(stopped[one.case.technique], case=one.case)
        if one.case.technique in stopped and one.pass_name == "latency"
        else one
        for one in records.measurements
    )
    tables = tabulate.build([replace(records, measurements=changed)], None)
    found = {(one.case.technique, one.verdict) for one in gate.rulings(tables, gate.parse("worse:latency"))}
    assert {("fp32", "invalid"), ("bf16", "inconclusive")} <= found


def test_stored_runs_do_not_pass_by_an_accuracy_that_nobody_compared() -> None:
    records = synthetic.records()
    with pytest.raises(UsageError, match="cannot be judged by accuracy"):
        list(gate.since(records, records, gate.parse("worse:latency,accuracy")))
