"""Counters in records, in tables and in the gate: exact, so any difference is one."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark.errors import NotComparable, WorkerDied
from leanmark.machine import callgrind
from leanmark.machine.counters import Counted
from leanmark.measuring import count_pass
from leanmark.measuring.memory_pass import Job
from leanmark.plan import QUICK
from leanmark.protocol.layout import Layout
from leanmark.protocol.messages import PeakMemory, Place, WorkloadSpec
from leanmark.reading import across, counts, gate, tabulate
from leanmark.reading.counts import Count
from leanmark.record import Case, Measurement
from leanmark.report.details import details
from leanmark.store import Records

from . import synthetic

COUNTS = {"flops": 1000.0, "operator_calls": 31.0, "allocations": 12.0, "instructions": 1_000_000.0}


def with_counts(*, times: float = 1.0, technique: str = "distill", **missing: str) -> Records:
    """The synthetic run, counted; those of one technique ``times`` as many."""

    def counted(one: Measurement) -> Measurement:
        if one.pass_name != "memory" or one.status != "ok":
            return one
        scale = times if one.case.technique == technique else 1.0
        meters = {"instructions": "callgrind"}
        series = [
            synthetic.single(name, value * scale, meters.get(name, one.case.backend))
            for name, value in COUNTS.items()
            if name not in missing
        ]
        return replace(one, series=(*one.series, *series), executed={"not_counted": missing})

    records = synthetic.records()
    return replace(records, measurements=tuple(counted(one) for one in records.measurements))


def ruled(records: Records, text: str, technique: str = "distill") -> gate.Ruling:
    found = gate.rulings(tabulate.build([records])[:1], gate.parse(text))
    return next(one for one in found if one.case.technique == technique)


@pytest.mark.parametrize(
    ("value", "before", "allowed", "verdict"),
    [
        (31, 31, 0.0, "same"),
        (32, 31, 0.0, "worse"),
        (30, 31, 0.0, "better"),
        (1_002_999, 1_000_000, 0.003, "same"),
        (1_003_001, 1_000_000, 0.003, "worse"),
        (997_008, 1_000_000, 0.003, "better"),
        (1, 0, 0.0, "worse"),
        (0, 0, 0.0, "same"),
    ],
)
def test_any_difference_beyond_the_tolerance_is_one(
    value: float, before: float, allowed: float, verdict: str
) -> None:
    assert counts.judge(Count(value=value, before=before, meter="eager"), allowed) == verdict


def test_what_was_counted_by_another_meter_is_not_compared() -> None:
    records = with_counts()
    [table, _] = tabulate.build([records])
    switch = next(row for row in table.rows if row.role == "backend switch")
    assert switch.counted is not None
    count = switch.counted.counts["operator_calls"]
    assert count.before is None
    assert count.reason == "counted by onnxruntime here and by eager there"
    assert counts.judge(count, 0.0) == "inconclusive"
    assert switch.counted.counts["instructions"].before == 1_000_000


def test_one_operator_more_fails_the_gate_and_says_by_how_much() -> None:
    found = ruled(with_counts(times=32 / 31), "worse:operator_calls")
    assert (found.verdict, found.reason) == ("worse", "31 -> 32 (+3.23%)")
    assert ruled(with_counts(times=32 / 31), "worse:operator_calls=5%").verdict == "same"
    assert ruled(with_counts(), "worse:operator_calls").verdict == "same"
    assert ruled(with_counts(times=0.5), "worse:flops").verdict == "better"


def test_instructions_have_a_tolerance_of_their_own() -> None:
    assert ruled(with_counts(times=1.002), "worse:instructions").verdict == "same"
    assert ruled(with_counts(times=1.002), "worse:instructions=0%").verdict == "worse"
    assert ruled(with_counts(times=1.004), "worse:instructions").verdict == "worse"


def test_what_was_not_counted_is_undecided_with_its_reason() -> None:
    found = ruled(with_counts(instructions="no counter here"), "worse:instructions")
    assert (found.verdict, found.reason) == ("inconclusive", "no counter here")
    assert ruled(synthetic.records(), "worse:flops").reason == "not counted"


def test_a_failed_sentinel_takes_no_verdict_from_a_count() -> None:
    records = with_counts(times=2.0)
    noisy = [
        replace(one, case=replace(one.case, sentinel=True), series=(synthetic.latency(1.0),))
        for one in records.measurements
        if one.pass_name == "latency" and one.case.is_baseline and one.case.backend == "eager"
    ]
    spoilt = replace(records, measurements=(*records.measurements, *noisy))
    assert ruled(spoilt, "worse:latency").verdict == "inconclusive"
    assert ruled(spoilt, "worse:operator_calls").verdict == "worse"


def test_stored_runs_are_compared_count_by_count_also_between_machines() -> None:
    older, newer = with_counts(), with_counts(times=2.0)
    rules = gate.parse("worse:flops,instructions")
    found = {(one.case.technique, one.rule.metric): one for one in gate.since(older, newer, rules)}
    assert found["distill", "flops"].reason == "1,000 -> 2,000 (+100.00%)"
    assert found["distill", "instructions"].verdict == "worse"
    assert found["fp32", "flops"].verdict == "same"
    there = replace(newer, run=synthetic.run(environment=synthetic.environment(cpu="another")))
    found = {(one.case.technique, one.rule.metric): one for one in gate.since(older, there, rules)}
    assert found["distill", "flops"].verdict == "worse"
    assert found["distill", "instructions"].reason == "another machine"


def test_other_software_or_work_is_refused() -> None:
    older = with_counts()
    software = replace(synthetic.environment(), software={"torch": "9"})
    with pytest.raises(NotComparable, match=r"software torch \(2\.13\.0\+cpu / 9\)"):
        across.compare_counts(older, replace(older, run=synthetic.run(environment=software)))
    other = tuple(replace(one, work="other") for one in older.measurements)
    with pytest.raises(NotComparable, match="work"):
        across.compare_counts(older, replace(older, measurements=other))
    with pytest.raises(NotComparable, match="no counted case in common"):
        across.compare_counts(older, replace(older, measurements=(), path=Path("empty.jsonl")))


def test_details_tell_counts_and_what_is_missing() -> None:
    [table, _] = tabulate.build([with_counts(times=2.0, allocations="planned ahead")])
    found = dict(details(next(row for row in table.rows if row.case.technique == "distill")))
    assert found["Operators per step"] == "31 -> 62 (+100.00%)"
    assert found["Allocations per step"] == "not counted: planned ahead"
    assert found["Instructions per step"] == "1,000,000 -> 2,000,000 (+100.00%), by callgrind"


def test_what_callgrind_counted_takes_precedence() -> None:
    records = with_counts()
    by_perf = synthetic.single("instructions", 7.0, "perf")
    both = tuple(
        replace(one, series=(*one.series, by_perf))
        if one.pass_name == "latency" and one.status == "ok"
        else one
        for one in records.measurements
    )
    [table, _] = tabulate.build([replace(records, measurements=both)])
    counted = table.rows[0].counted
    assert counted is not None
    assert (counted.counts["instructions"].value, counted.counts["instructions"].meter) == (1e6, "callgrind")


def test_counts_become_series_of_who_counted() -> None:
    found = count_pass.series(Counted(counts={"flops": 7, "instructions": 100}), "eager")
    assert [(one.metric, one.values, one.meter) for one in found] == [
        ("flops", (7.0,), "eager"),
        ("instructions", (100.0,), "perf"),
    ]


def test_callgrind_is_asked_for_the_same_case_in_the_same_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = PeakMemory(
        case=Case(workload="cnn"),
        workload=WorkloadSpec(name="cnn"),
        folder=str(tmp_path),
        place=Place(cores=(0,), threads=1),
        steps=5,
    )
    job = Job(Layout(hash_seed=1, padding_bytes=3, threads=1, wait="passive"), request)
    asked: list[tuple[str, ...]] = []

    def count(
        command: tuple[str, ...], steps: int, timeout_s: float, environment: Mapping[str, str], folder: Path
    ) -> int:
        asked.append(command)
        assert environment["LEANMARK_PADDING"] == "xxx"
        assert pickle.loads(Path(command[-1]).read_bytes()) == request
        return 100 * steps + 1

    monkeypatch.setattr(callgrind, "command_instructions", count)
    plan = replace(QUICK, instructions="callgrind")
    [series], missing = count_pass.instructions(job, plan)
    assert (series.metric, series.values, series.meter, missing) == (
        "instructions",
        (100.0,),
        "callgrind",
        {},
    )
    assert asked[0][:4] == (sys.executable, "-P", "-m", "leanmark.worker.counted")
    assert count_pass.instructions(job, QUICK) == ((), {})

    def fail(*_: object) -> int:
        raise WorkerDied("it exited with code 1")

    monkeypatch.setattr(callgrind, "command_instructions", fail)
    assert count_pass.instructions(job, plan) == ((), {"instructions": "it exited with code 1"})
