from __future__ import annotations

from dataclasses import replace

from leanmark.record import NOT_STEADY, Block, Case, Finding, Measurement, Quality, Series
from leanmark.statistics.merge import merged

CASE = Case(workload="cnn")


def replica(process: int, *values: float, unsteady: bool = False) -> Measurement:
    blocks = tuple(
        Block(process=process, round=round_, order=0, value=value, loops=1, start_s=0.0)
        for round_, value in enumerate(values)
    )
    return Measurement(
        run="r",
        case=CASE,
        pass_name="latency",
        status="ok",
        work="w",
        contest="c",
        series=(Series(metric="latency_s", meter="wall", blocks=blocks),),
        findings=(Finding(code=NOT_STEADY, message="x"),) if unsteady else (),
        quality=Quality(metric="accuracy", value=1.0, count=1) if process == 0 else None,
        executed={"processes": [{"process": process}]},
    )


def test_replicas_of_one_contest_are_joined_block_by_block() -> None:
    [one] = merged([replica(0, 1.0, 2.0), replica(1, 3.0)])
    assert one.series[0].values == (1.0, 2.0, 3.0)
    assert one.series[0].processes == 2
    assert one.quality is not None
    assert one.executed["processes"] == [{"process": 0}, {"process": 1}]


def test_a_case_that_failed_in_any_process_has_no_number() -> None:
    failed = replace(replica(1, 1.0), status="failed", reason="died", series=())
    [one] = merged([replica(0, 1.0), failed, replica(2, 1.0)])
    assert (one.status, one.reason, one.series) == ("failed", "died", ())


def test_measurements_of_different_contests_are_not_joined() -> None:
    [one] = merged([replica(0, 1.0), replace(replica(0, 5.0), contest="other")])
    assert one.series[0].values == (5.0,)


def test_passes_and_cases_stay_apart() -> None:
    memory = replace(replica(0, 1.0), pass_name="memory")
    other = replace(replica(0, 1.0), case=replace(CASE, batch=2))
    assert len(merged([replica(0, 1.0), memory, other])) == 3


def test_many_unsteady_processes_decide_and_a_few_are_only_told() -> None:
    half = merged([replica(0, 1.0, unsteady=True), replica(1, 1.0)])[0].findings
    assert [finding.code for finding in half] == [NOT_STEADY]
    assert "1 of 2 processes" in half[0].message
    few = merged([replica(n, 1.0, unsteady=n == 3) for n in range(6)])[0].findings
    assert [finding.code for finding in few] == ["few-not-steady"]


def test_what_only_later_processes_told_is_kept() -> None:
    joules = replace(replica(1, 3.0).series[0], metric="cold_start_j", meter="rapl")
    later = replica(1, 3.0)
    [one] = merged([replica(0, 1.0), replace(later, series=(*later.series, joules))])
    found = one.find("cold_start_j")
    assert found is not None
    assert (found.values, found.blocks[0].process) == ((3.0,), 1)
