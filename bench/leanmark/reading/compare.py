"""Candidate over baseline, with a verdict, or a refusal. Pure.

A verdict needs the whole interval on one side: beyond the margin for ``better`` and ``worse``, inside it
for ``same``. Identical code got ``better`` or ``worse`` in at most 0.6 % of 1,500 simulated contests of 20
rounds, at a margin of 2 %, with 1 to 8 processes and a spread between them of up to 3.3 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from leanmark import units
from leanmark.errors import NotComparable
from leanmark.record import (
    NOT_STEADY,
    Case,
    Comparison,
    Direction,
    Interval,
    Measurement,
    Provenance,
    Run,
    Series,
    Verdict,
    left_out,
)
from leanmark.statistics import core_speed, instrument, rounds, stats
from leanmark.thresholds import DEFAULTS, kind_of

MARGIN = DEFAULTS["latency"]
"""The relative difference that counts unless a run's plan says otherwise."""

QUALITY_MARGIN = DEFAULTS["accuracy"]
"""The difference in accuracy that counts: one percentage point."""

ESTIMATED = "not measured: an estimate derived from time adds nothing to the latency ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison: a measurement and the run it is from."""

    run: Run
    measurement: Measurement


def check_comparable(run_a: Run, run_b: Run, case_a: Case, case_b: Case, work_a: str, work_b: str) -> None:
    """Two measurements may be divided where only the technique and the backend differ.

    Raises:
        NotComparable: the machine, the software or the work differ; the message lists every difference.
    """
    ours, theirs = run_a.environment, run_b.environment
    differences = [
        *_differences("machine", ours.machine, theirs.machine),
        *_differences("software", ours.software, theirs.software),
        *_differences("case", _shared(case_a), _shared(case_b)),
        *_differences("case", {"work": work_a}, {"work": work_b}),
    ]
    if differences:
        raise NotComparable(f"{case_a.id} and {case_b.id} differ in {'; '.join(differences)}")


def judge(
    interval: Interval, margin: float, allowance: float, direction: Direction, floor: float = 0.0
) -> Verdict:
    """The verdict on a ratio; ``allowance`` widens the interval by that much on either side.

    ``floor`` is what an absolute difference that never counts is of the baseline's value: a candidate that
    much above or below it is the same.
    """
    low, high = interval.low / (1 + allowance), interval.high * (1 + allowance)
    least, most = min(1 / (1 + margin), 1 - floor), 1 + max(margin, floor)
    if least < low and high < most:
        return "same"
    if high < least:
        return "better" if direction == "lower" else "worse"
    if low > most:
        return "worse" if direction == "lower" else "better"
    return "inconclusive"


def judge_quality(
    change: Interval, margin: float = QUALITY_MARGIN, direction: Direction = "higher"
) -> Verdict:
    """The verdict on a difference (candidate - baseline) in quality."""
    if -margin < change.low and change.high < margin:
        return "same"
    if change.low > margin:
        return "better" if direction == "higher" else "worse"
    if change.high < -margin:
        return "worse" if direction == "higher" else "better"
    return "inconclusive"


def compare_series(baseline: Side, candidate: Side, metric: str) -> Comparison:
    """Compare one metric: round by round where both took part in one contest, unpaired otherwise.

    Training runs of two records that trained with the same seeds are compared seed by seed. Which differences
    count is what the plan of the candidate's run says.

    Raises:
        NotComparable: machine, software or work differ.
    """
    ours, theirs = candidate.measurement, baseline.measurement
    check_comparable(baseline.run, candidate.run, theirs.case, ours.case, theirs.work, ours.work)
    thresholds = candidate.run.plan.thresholds
    blank = Comparison(
        metric=metric,
        baseline=theirs.case,
        candidate=ours.case,
        ratio=None,
        verdict="inconclusive",
        margin=thresholds.margin(kind_of(metric)),
        allowance=0.0,
    )
    for measurement in (theirs, ours):
        if measurement.status == "invalid":
            return replace(blank, verdict="invalid", reason=f"{measurement.case.id}: {measurement.reason}")
    below, above = theirs.find(metric), ours.find(metric)
    if below is None or above is None:
        absent = theirs if below is None else ours
        return replace(blank, reason=f"{absent.case.id}: {absent.reason or f'no {metric}'}")
    _check_same_meter(below, above)
    unlike = _unlike(theirs, ours, metric)
    if unlike is not None:
        return replace(blank, reason=unlike)
    typical = stats.summarize(rounds.bounded(below)).value
    floor = thresholds.floor(kind_of(metric), typical)
    blank = replace(blank, floor=floor, margin=max(blank.margin, floor))
    together = ours.contest is not None and (ours.run, ours.contest) == (theirs.run, theirs.contest)
    compared = _compare(blank, below, above, paired=together or _same_seeds(below, above))
    return _warm(_with_time(compared, ours) if together else compared, theirs, ours)


def pairing(compared: Comparison) -> str | None:
    """How training runs of two records were compared; ``None`` for anything else."""
    if compared.ratio is None or _replicas(compared.metric) != "seeds":
        return None
    return "paired by seed" if compared.pairs else "unpaired: the seeds differ"


def _same_seeds(below: Series, above: Series) -> bool:
    """Whether both were trained from the same first weights, on samples in the same order, run by run."""
    ours, theirs = ({block.process for block in series.blocks} for series in (above, below))
    return _replicas(above.metric) == "seeds" and ours == theirs


def _compare(blank: Comparison, below: Series, above: Series, *, paired: bool) -> Comparison:
    provenance = Provenance.worst((below.provenance, above.provenance))
    blank = replace(blank, provenance=provenance, processes=min(below.processes, above.processes))
    if provenance is Provenance.ESTIMATED_MODEL:
        return replace(blank, reason=ESTIMATED)
    if min(*below.values, *above.values) <= 0:
        return replace(blank, reason="a value is not above zero, so there is no ratio")
    if paired:
        pair = instrument.matched(rounds.set_aside(below, above))
        ratios = stats.paired_log_ratios(pair.baseline, pair.candidate)
        interval, processes = stats.ratio_interval(ratios), len(ratios)
        pairs = sum(len(values) for values in ratios.values())
        blank = replace(blank, processes=processes, pairs=pairs, findings=pair.findings)
    else:
        interval = stats.unpaired_ratio(rounds.bounded(below), rounds.bounded(above))
    interval = instrument.widened(interval, below, above)
    if interval is None:
        return replace(blank, reason=_too_few(blank, paired=paired))
    if paired:
        return _with_verdict(blank, interval, below.direction)
    return _apart(blank, interval, below, above)


def _apart(blank: Comparison, interval: Interval, below: Series, above: Series) -> Comparison:
    """Two runs were not on the core at once, and the core itself may have been faster in one of them."""
    faster = core_speed.change(below, above)
    if faster is None:
        return _with_verdict(blank, interval, below.direction)
    compared = _with_verdict(blank, core_speed.widened(interval, faster), below.direction)
    if 1 / (1 + blank.margin) < faster < 1 + blank.margin:
        return compared
    told = f"the core itself was {units.ratio(faster)} as fast as before, and the interval allows for that"
    if compared.verdict == "inconclusive":
        told += ": only one run of both can settle it"
    return replace(compared, reason=told, more_processes=None)


def _with_verdict(blank: Comparison, interval: Interval, direction: Direction) -> Comparison:
    processes, margin = blank.processes, blank.margin
    allowance = stats.allowance(processes)
    verdict = judge(interval, margin, allowance, direction, blank.floor)
    compared = replace(
        blank,
        ratio=interval,
        verdict=verdict,
        allowance=allowance,
        detectable=stats.detectable(interval, processes, margin),
    )
    return _unsettled(compared, interval) if verdict == "inconclusive" else compared


def demoted(comparison: Comparison, reason: str) -> Comparison:
    """Without the verdict, whatever the interval says."""
    return replace(comparison, verdict="inconclusive", reason=reason, demoted=True)


def _warm(comparison: Comparison, *sides: Measurement) -> Comparison:
    """No verdict on what was still warming up: its rounds do not show the speed it will have."""
    warming = [
        one.case.technique for one in sides if any(finding.code == NOT_STEADY for finding in one.findings)
    ]
    if not warming:
        return comparison
    return demoted(comparison, f"{' and '.join(dict.fromkeys(warming))} had not reached a steady state")


def _unlike(below: Measurement, above: Measurement, metric: str) -> str | None:
    """Why two values of ``metric`` are not of the same thing; ``None`` where they are."""
    targets = [one.executed.get("target") for one in (below, above)]
    if targets[0] != targets[1]:
        return f"trained to different targets: {targets[0]} and {targets[1]}"
    if kind_of(metric) != "energy":
        return None
    parts = {"the reference's": left_out(below.findings), "its own": left_out(above.findings)}
    if len(set(parts.values())) == 1:
        return None
    told = (f"{whose} is without {', '.join(lost)}" for whose, lost in parts.items() if lost)
    return f"the energies are not of the same parts: {' and '.join(told)}"


def _replicas(metric: str) -> str:
    """What is replicated, which the blocks number as processes."""
    return "seeds" if metric.startswith("run_to_quality") else "processes"


def _unsettled(compared: Comparison, interval: Interval) -> Comparison:
    """Says how many replicas would settle it."""
    processes, margin, replicas = compared.processes, compared.margin, _replicas(compared.metric)
    if processes < stats.MIN_PROCESSES:
        reason = f"{processes} of the {stats.MIN_PROCESSES} {replicas} that settling it needs at least"
        return replace(compared, reason=reason, more_processes=stats.MIN_PROCESSES - processes)
    needed = stats.processes_to_settle(interval, processes, margin)
    if needed is None:
        return replace(compared, reason=f"the effect is too close to the margin of {margin:.1%} to settle")
    reason = f"{processes} {replicas} seen, about {needed} would settle it"
    return replace(compared, reason=reason, more_processes=needed - processes)


def _with_time(compared: Comparison, measurement: Measurement) -> Comparison:
    """What the processes still needed would take, from what those of this contest took."""
    took = [place["wall_s"] for place in measurement.executed.get("processes", ()) if "wall_s" in place]
    if compared.more_processes is None or not took:
        return compared
    more_s = compared.more_processes * median(took)
    return replace(compared, more_s=more_s, reason=f"{compared.reason}: about {units.seconds(more_s)} more")


def _too_few(blank: Comparison, *, paired: bool) -> str:
    if _replicas(blank.metric) == "seeds":
        return f"not enough seeds: {blank.processes} of the {stats.MIN_PROCESSES} that an interval needs"
    if blank.processes == 1 and not blank.pairs:
        return "one process"
    if paired:
        return f"{blank.pairs} rounds in {blank.processes} processes are too few for an interval"
    return (
        f"{blank.processes} processes that share no rounds; an interval needs {stats.MIN_PROCESSES} "
        "on each side"
    )


def _check_same_meter(below: Series, above: Series) -> None:
    differences = _differences(
        below.metric,
        {"meter": below.meter, "scope": below.scope},
        {"meter": above.meter, "scope": above.scope},
    )
    if differences:
        raise NotComparable(f"the two sides differ in {'; '.join(differences)}")


def _shared(case: Case) -> dict[str, object]:
    """What both sides of a comparison must have in common."""
    names = ("workload", "phase", "batch", "device", "threads", "wait")
    return {name: getattr(case, name) for name in names}


def _differences(what: str, ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    keys = sorted({*ours, *theirs})
    return [
        f"{what} {key} ({ours.get(key)} / {theirs.get(key)})"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]
