"""The same cases in two runs: what `leanmark compare A B` compares. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from leanmark.errors import NotComparable
from leanmark.reading.compare import Side, check_comparable, compare_series
from leanmark.reading.counts import PASSES, Counted, counted
from leanmark.record import Case, Comparison, Measurement, Pass
from leanmark.statistics.merge import merged
from leanmark.store import Records

_METRICS = ("latency_s", "working_memory_bytes", "energy_j", "run_to_quality_s", "run_to_quality_j")

_LABELS: dict[Pass, str] = {
    "memory": "memory: ",
    "energy": "energy: ",
    "quality_run": "training to its target: ",
}


def compare_runs(a: Records, b: Records) -> tuple[Comparison, ...]:
    """B over A for every case and metric that both measured.

    Raises:
        NotComparable: they share no case, not even one that broke in B, or were made on different machines,
            software or work.
    """
    found = tuple(_comparisons(a, b))
    if not found and not any(broken(a, b)):
        raise NotComparable(f"{a.path.name} and {b.path.name} have no measured case in common")
    return found


def compare_counts(a: Records, b: Records) -> tuple[Counted, ...]:
    """What a step does in B beside what it did in A, for every case that both counted.

    The machines may differ: only instructions depend on them, and are left out then.

    Raises:
        NotComparable: they share no case, not even one that broke in B, or differ in software or work.
    """
    found = tuple(_counts(a, b))
    if not found and not any(broken(a, b)):
        raise NotComparable(f"{a.path.name} and {b.path.name} have no counted case in common")
    return found


def lost(a: Records, b: Records) -> Iterator[Measurement]:
    """What A measured and B has no number of, with B's reason; not a target that B did not reach, which
    :func:`compare_runs` tells."""
    sound = {(one.case, one.pass_name) for one in a.measurements if one.status == "ok"}
    for one in merged(b.measurements):
        told = one.status == "ok" or _missed(one)
        if not told and (one.case, one.pass_name) in sound and one.pass_name != "prepare":
            yield one


def broken(a: Records, b: Records) -> Iterator[Measurement]:
    """Of what B lost, the latencies and training runs to a target that failed or turned out invalid."""
    for one in lost(a, b):
        if one.pass_name in ("latency", "quality_run") and one.status in ("failed", "invalid"):
            yield one


def why(one: Measurement) -> str:
    """What became of a measurement without a number: ``memory: failed: the process was killed``."""
    return f"{_LABELS.get(one.pass_name, '')}{one.status}: {one.reason}"


def _missed(one: Measurement) -> bool:
    return one.pass_name == "quality_run" and one.status == "skipped"


def _counts(a: Records, b: Records) -> Iterator[Counted]:
    """Those of ``compare_counts``, which may be none."""
    theirs, ours = _counting(a), _counting(b)
    machines = a.run.environment.machine, b.run.environment.machine
    here = replace(a.run, environment=replace(a.run.environment, machine=machines[1]))
    for case in ours:
        if case not in theirs or case.commit:
            continue
        before, after = theirs[case], ours[case]
        check_comparable(here, b.run, case, case, before[0].work, after[0].work)
        found = counted(case, after, before)
        yield found if machines[0] == machines[1] else found.without("instructions", "another machine")


def _counting(records: Records) -> dict[Case, list[Measurement]]:
    """The passes of each case that count."""
    found: dict[Case, list[Measurement]] = {}
    for one in merged(records.measurements):
        if one.pass_name in PASSES and one.status == "ok":
            found.setdefault(one.case, []).append(one)
    return {case: sorted(each, key=lambda one: PASSES.index(one.pass_name)) for case, each in found.items()}


def _comparisons(a: Records, b: Records) -> Iterator[Comparison]:
    """Those of ``compare_runs``, which may be none."""
    theirs = {(one.case, one.pass_name): one for one in merged(a.measurements) if one.status == "ok"}
    for ours in merged(b.measurements):
        before = theirs.get((ours.case, ours.pass_name))
        if before is None or ours.case.commit is not None:
            continue
        missed = _missed(ours)
        if ours.status != "ok" and not missed:
            continue
        for metric in _METRICS:
            if before.find(metric) and (missed or ours.find(metric)):
                yield compare_series(
                    Side(run=a.run, measurement=before), Side(run=b.run, measurement=ours), metric
                )
