"""The same cases in two runs: what `leanmark compare A B` compares. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from leanmark.errors import NotComparable
from leanmark.reading.compare import Side, check_comparable, compare_series
from leanmark.reading.counts import PASSES, Counted, counted
from leanmark.record import Case, Comparison, Measurement, Pass
from leanmark.statistics.merge import merged
from leanmark.store import Records

_METRICS = ("latency_s", "working_memory_bytes", "energy_j", "run_to_quality_s", "run_to_quality_j")

_INDEPENDENT: tuple[tuple[Pass, ...], ...] = (("latency", "memory", "energy"), ("quality_run",))
"""Passes of a step, and of a training run: one of these needs none of the others."""

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
        shared = {one.case for one in a.measurements} & {one.case for one in b.measurements}
        told = (f"{case.id}: {reason}" for case, reason in uncompared(a, b) if case in shared)
        raise NotComparable(
            "; ".join((f"{a.path.name} and {b.path.name} have no measured case in common", *islice(told, 3)))
        )
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


def uncompared(a: Records, b: Records) -> Iterator[tuple[Case, str]]:
    """What of either run is in no comparison, and why; not a target that B alone did not reach, as above."""
    theirs, ours = _by_pass(a), _by_pass(b)
    for case in dict.fromkeys((*theirs, *ours)):
        before, after = theirs.get(case, {}), ours.get(case, {})
        for names in _INDEPENDENT:
            for name in names:
                reason = _obstacle(before.get(name), after.get(name))
                if reason:
                    yield case, _LABELS.get(name, "") + reason
                if reason and name == "latency":
                    break  # why there is no other pass either


def broken(a: Records, b: Records) -> Iterator[Measurement]:
    """Of what B lost, the latencies and training runs to a target that failed or turned out invalid."""
    for one in lost(a, b):
        if one.pass_name in ("latency", "quality_run") and one.status in ("failed", "invalid"):
            yield one


def why(one: Measurement) -> str:
    """What became of a measurement without a number: ``memory: failed: the process was killed``."""
    return f"{_LABELS.get(one.pass_name, '')}{one.status}: {one.reason}"


def _obstacle(before: Measurement | None, after: Measurement | None) -> str | None:
    """Why a pass of both runs is not compared in full; ``None`` where it is, or where neither has it."""
    sides = {side: one for side, one in (("A", before), ("B", after)) if one}
    why_not = {side: f"{one.status}: {one.reason}" for side, one in sides.items() if one.status != "ok"}
    if len(sides) == 1:
        [side] = sides
        return ", ".join((f"only in {side}", *why_not.values()))
    if before is None or after is None or (before.status == "ok" and _missed(after)):
        return None
    if len(why_not) == 2 and len(set(why_not.values())) == 1:
        return f"in both {why_not['A']}"
    if why_not:
        return "; ".join(f"in {side} {text}" for side, text in why_not.items())
    lone = (
        f"{metric} only in {side}"
        for one, other, side in ((before, after, "A"), (after, before, "B"))
        for metric in _METRICS
        if one.find(metric) and not other.find(metric)
    )
    return "; ".join(lone) or None


def _by_pass(records: Records) -> dict[Case, dict[Pass, Measurement]]:
    """What each case of the run's own commit came to; an A/A sentinel has no case in another run."""
    found: dict[Case, dict[Pass, Measurement]] = {}
    for one in merged(records.measurements):
        if one.case.commit is None and not one.case.sentinel:
            found.setdefault(one.case, {})[one.pass_name] = one
    return found


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
