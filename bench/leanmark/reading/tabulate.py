"""Records to rows: one table per contest, one row per technique and backend. Pure.

The passes of a case (prepare, latency, memory, energy) meet here, and each row is compared to the
unchanged model on the same backend. The unchanged model on another backend is compared to the unchanged
model in eager PyTorch and named for what it is: a switch of backend, no technique. In a run against another
commit, each row is compared to the same case there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from leanmark import chain
from leanmark.intensity import Intensity
from leanmark.reading import carbon, memory, quality_run, sci
from leanmark.reading.compare import Side, compare_series, judge_quality
from leanmark.reading.cost import of_links
from leanmark.reading.counts import PASSES, Counted, counted
from leanmark.reading.device import OnDevice, on_device
from leanmark.reading.energetics import Energetics, energetics
from leanmark.reading.first_call import FirstCall, first_call
from leanmark.reading.memory import Split
from leanmark.reading.quality_run import QualityRun
from leanmark.record import (
    BASELINE,
    REFERENCE_BACKEND,
    Case,
    Comparison,
    Cost,
    Finding,
    Interval,
    Measurement,
    ModelFacts,
    Pass,
    Quality,
    Run,
    Status,
    Summary,
    Verdict,
)
from leanmark.reference import reference_among
from leanmark.statistics import rounds, stats
from leanmark.statistics.merge import merged
from leanmark.statistics.percentiles import Percentile, percentiles
from leanmark.store import Records
from leanmark.thresholds import Thresholds

Role = Literal["baseline", "sentinel", "backend switch", "technique", "commit"]
"""Cases of the other commit of a run against one are baselines; their twins of this tree are "commit"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured quantity of a row; ``comparison`` is to the row's reference."""

    summary: Summary
    comparison: Comparison | None = None
    reference: Summary | None = None

    @property
    def plain_ratio(self) -> float | None:
        """Value over value. Not a claim: it has no interval, and none is printed beside it."""
        if self.reference is None or self.reference.value <= 0:
            return None
        return self.summary.value / self.reference.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Quality, the interval of its value, and the paired change against the unchanged model.

    For regression there is no interval and no verdict.
    """

    quality: Quality
    interval: Interval | None = None
    change: Interval | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One technique on one backend. ``None`` is "not measured"; ``missing`` says why, by pass."""

    case: Case
    role: Role
    status: Status
    reason: str | None = None
    verdict: str
    latency: Metric | None = None
    cold_start: Metric | None = None
    percentiles: tuple[Percentile, ...] = ()
    peak_memory: Metric | None = None
    import_memory: Metric | None = None
    working_memory: Metric | None = None
    steady_memory: Metric | None = None
    memory: Split | None = None
    device: OnDevice | None = None
    counted: Counted | None = None
    energy: Metric | None = None
    energy_at_rate: Metric | None = None
    energetics: Energetics | None = None
    co2_g: float | None = None
    footprint: sci.Footprint | None = None
    model: ModelFacts | None = None
    reference_model: ModelFacts | None = None
    judged: Judged | None = None
    cost: Cost | None = None
    first_call: FirstCall | None = None
    quality_run: QualityRun | None = None
    executed: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def samples_per_s(self) -> float | None:
        """Throughput: batch over the latency of one step."""
        return self.case.batch / self.latency.summary.value if self.latency else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows that may be compared with one another: same work, phase, batch, device and threads."""

    run: Run
    rows: tuple[Row, ...]
    intensity: Intensity | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def case(self) -> Case:
        """What all rows share; its technique and backend are those of the first row only."""
        return self.rows[0].case

    @property
    def title(self) -> str:
        case = self.case
        threads = f"{case.threads} thread" + ("s" if case.threads > 1 else "")
        return f"{case.workload} · {case.phase} · batch {case.batch} · {case.device}, {threads}"


def build(records: Iterable[Records], intensity: Intensity | None = None) -> tuple[Table, ...]:
    """The tables of all ``records``, in their order; different runs never share a table."""
    return tuple(table for one in records for table in _tables(one, intensity))


def _tables(records: Records, intensity: Intensity | None) -> list[Table]:
    contests: dict[tuple[str, ...], list[Case]] = {}
    # a model may be prepared only to build another on it: rows are what took part in a contest
    measured = (one.case for one in records.measurements if one.pass_name not in ("prepare", "quality_run"))
    for case in dict.fromkeys(measured):
        contests.setdefault(case.pair_key, []).append(case)
    passes = _Passes(records)
    tables = [
        Table(
            run=records.run,
            rows=tuple(_row(case, passes, intensity) for case in _ordered(cases)),
            intensity=intensity,
            findings=records.findings,
        )
        for cases in contests.values()
    ]
    failed = [row for table in tables for row in table.rows if _sentinel_failed(row)]
    return [_demoted(table, failed) for table in tables] if failed else tables


def _sentinel_failed(row: Row) -> bool:
    """Whether equal code came out as different: then this machine was not fit to judge anything."""
    compared = row.latency.comparison if row.latency else None
    return row.role == "sentinel" and compared is not None and compared.verdict in ("better", "worse")


def _demoted(table: Table, failed: Sequence[Row]) -> Table:
    names = ", ".join(f"{row.case.workload} {row.case.phase} batch {row.case.batch}" for row in failed)
    reason = f"the A/A sentinel failed ({names}): this run found a difference between equal code"
    return replace(table, rows=tuple(_without_verdict(row, reason) for row in table.rows))


def _without_verdict(row: Row, reason: str) -> Row:
    if row.role == "sentinel" or row.status != "ok":
        return row
    latency = _taken_back(row.latency, reason)
    return replace(
        row,
        latency=latency,
        energy=_taken_back(row.energy, reason),
        energy_at_rate=_taken_back(row.energy_at_rate, reason),
        verdict=_verdict(row.role, row.status, latency, row.judged),
    )


def _taken_back(metric: Metric | None, reason: str) -> Metric | None:
    compared = metric.comparison if metric else None
    if metric is None or compared is None:
        return metric
    without = replace(compared, verdict="inconclusive", reason=reason, demoted=True)
    return replace(metric, comparison=without)


class _Passes:
    """The measurements of one run by case and pass. Of a pass made twice, the later counts."""

    def __init__(self, records: Records) -> None:
        self.run = records.run
        self._found = {(one.case, one.pass_name): one for one in merged(records.measurements)}
        self.all = self._found.values()
        self._cases = [case for case, name in self._found if name == "latency"]

    def get(self, case: Case, name: Pass) -> Measurement | None:
        return self._found.get((case, name))

    def counters(self, case: Case | None) -> list[Measurement | None]:
        """The passes that count, in the order in which they are believed."""
        return [self.get(case, name) for name in PASSES] if case else []

    def prepared(self, case: Case) -> Measurement | None:
        """The prepare pass; facts of a model hold for every phase and batch it runs in."""
        own = self.get(case, "prepare")
        if own is not None:
            return own
        same = (case.workload, case.technique, case.backend, case.commit)  # also that of a sentinel
        return next(
            (
                one
                for (other, name), one in self._found.items()
                if name == "prepare"
                and one.status == "ok"
                and (other.workload, other.technique, other.backend, other.commit) == same
            ),
            None,
        )

    def cost(self, case: Case) -> Cost | None:
        """What making the model took: the sum over the links of its chain, each made from the one before."""
        links = chain.parse(case.technique)
        names = [chain.spell(links[: n + 1]) for n in range(len(links))] or [BASELINE]
        return of_links([self.prepared(replace(case, technique=name)) for name in names])

    def reference(self, case: Case) -> Case | None:
        """What ``case`` is compared to; ``None`` for the baseline itself."""
        reference = reference_among(case, self._cases)
        if reference is None or (case.is_baseline and self.get(reference, "latency") is None):
            return None
        return reference


def _ordered(cases: list[Case]) -> list[Case]:
    """Backends together, eager first, and in each the unchanged model first."""
    backends = list(dict.fromkeys(case.backend for case in cases))
    return sorted(
        cases,
        key=lambda case: (
            case.backend != REFERENCE_BACKEND,
            backends.index(case.backend),
            0 if case.is_baseline else 1 if case.sentinel else 2,
            cases.index(case),
        ),
    )


def _row(case: Case, passes: _Passes, intensity: Intensity | None) -> Row:
    reference = passes.reference(case)
    prepared, timed = passes.prepared(case), passes.get(case, "latency")
    found = {
        "prepare": prepared,
        "latency": timed,
        "memory": passes.get(case, "memory"),
        "energy": passes.get(case, "energy"),
    }
    status, reason = _status(prepared, timed)
    latency = _metric("latency", "latency_s", case, reference, passes)
    energy = _metric("energy", "energy_j", case, reference, passes)
    thresholds = passes.run.plan.thresholds
    judged = _judge(timed.quality, thresholds) if timed and timed.quality else None
    before = passes.prepared(reference) if reference else None
    role = _role(case, reference)
    return Row(
        case=case,
        role=role,
        status=status,
        reason=reason,
        verdict=_verdict(role, status, latency, judged),
        latency=latency,
        cold_start=_metric("latency", "cold_start_s", case, None, passes),
        percentiles=percentiles(timed.samples_s) if timed and timed.samples_s else (),
        peak_memory=_metric("memory", "peak_memory_bytes", case, reference, passes),
        import_memory=_metric("memory", "import_memory_bytes", case, None, passes),
        working_memory=_metric("memory", "working_memory_bytes", case, reference, passes),
        steady_memory=_metric("memory", "steady_memory_bytes", case, reference, passes),
        memory=memory.split(found["memory"]),
        device=on_device(timed),
        counted=counted(case, passes.counters(case), passes.counters(reference)),
        energy=energy,
        energy_at_rate=_metric("energy", "energy_at_rate_j", case, reference, passes),
        energetics=energetics(found["energy"], energy.summary) if found["energy"] and energy else None,
        co2_g=carbon.grams(energy.summary.value, intensity) if energy and intensity else None,
        footprint=sci.footprint(passes.run.site, intensity, energy, latency),
        model=prepared.model if prepared else None,
        reference_model=before.model if before else None,
        judged=judged,
        cost=passes.cost(case),
        first_call=first_call(timed, passes.get(reference, "latency") if reference else None),
        quality_run=quality_run.find(passes.all, case),
        executed={**(prepared.executed if prepared else {}), **(timed.executed if timed else {})},
        missing={name: _absence(one) for name, one in found.items() if one is None or one.status != "ok"},
        findings=_findings(found.values(), (latency, energy)),
    )


def _role(case: Case, reference: Case | None) -> Role:
    if case.sentinel:
        return "sentinel"
    if case.commit is not None:
        return "baseline"
    if reference is not None and reference.commit is not None:
        return "commit"
    if not case.is_baseline:
        return "technique"
    return "backend switch" if reference else "baseline"


def _absence(measurement: Measurement | None) -> str:
    if measurement is None:
        return "this pass was not run"
    return f"{measurement.status}: {measurement.reason}"


def _status(prepared: Measurement | None, timed: Measurement | None) -> tuple[Status, str | None]:
    """The first pass that went wrong decides; the memory and energy passes only leave a gap."""
    for measurement in (prepared, timed):
        if measurement is not None and measurement.status != "ok":
            return measurement.status, measurement.reason
    return "ok", None


def _metric(name: Pass, metric: str, case: Case, reference: Case | None, passes: _Passes) -> Metric | None:
    measurement = passes.get(case, name)
    series = measurement.find(metric) if measurement else None
    if measurement is None or series is None:
        return None
    summary = stats.summarize(rounds.bounded(series))
    before = passes.get(reference, name) if reference else None
    other = before.find(metric) if before else None
    # on a GPU, one backend's allocator and another's share of the host are no two sides of a ratio
    if before is None or (other is not None and other.meter != series.meter):
        return Metric(summary=summary)
    return Metric(
        summary=summary,
        comparison=compare_series(
            Side(run=passes.run, measurement=before), Side(run=passes.run, measurement=measurement), metric
        ),
        reference=stats.summarize(rounds.bounded(other)) if other else None,
    )


def _judge(quality: Quality, thresholds: Thresholds) -> Judged:
    if quality.correct is None:
        return Judged(quality=quality)
    interval = stats.wilson(quality.correct, quality.count)
    if quality.gained is None or quality.lost is None:
        return Judged(quality=quality, interval=interval)
    change = stats.paired_accuracy_change(quality.gained, quality.lost, quality.count)
    return Judged(
        quality=quality,
        interval=interval,
        change=change,
        verdict=judge_quality(change, thresholds.margin("accuracy"), quality.direction),
    )


def _verdict(role: Role, status: Status, latency: Metric | None, judged: Judged | None) -> str:
    """Words such as ``better · accuracy same``; speed never without quality."""
    if status != "ok":
        return status
    if role == "baseline":
        return "baseline"
    if latency is None:
        return "not measured"
    if latency.comparison is None:
        return "no baseline"
    speed = latency.comparison.verdict
    if role == "sentinel":
        return "A/A failed" if speed in ("better", "worse") else "A/A"
    if speed == "invalid":
        return "invalid"
    if judged is None:
        return f"{speed} · quality not measured"
    name = judged.quality.metric
    return f"{speed} · {name} {judged.verdict or 'not judged'}"


def _findings(
    measurements: Iterable[Measurement | None], metrics: Iterable[Metric | None]
) -> tuple[Finding, ...]:
    found = [finding for one in measurements if one is not None for finding in one.findings]
    compared = (metric.comparison for metric in metrics if metric is not None)
    found.extend(finding for one in compared if one is not None for finding in one.findings)
    return tuple(dict.fromkeys(found))
