"""Records to rows: one table per contest, one row per technique and backend. Pure.

The passes of a case (prepare, latency, memory, energy) meet here, and each row is compared to the
unchanged model on the same backend. The unchanged model on another backend is compared to the unchanged
model in eager PyTorch and named for what it is: a switch of backend, no technique. In a run against another
commit, each row is compared to the same case there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leanmark.intensity import Intensity
from leanmark.machine.core_speed import slowed_share
from leanmark.reading import carbon, memory, quality_run, sci
from leanmark.reading.compare import Side, compare_series
from leanmark.reading.counts import counted
from leanmark.reading.device import on_device
from leanmark.reading.energetics import energetics
from leanmark.reading.first_call import first_call
from leanmark.reading.passes import Passes
from leanmark.reading.sentinel import believed
from leanmark.reading.table import Metric, Row, Table
from leanmark.reading.verdict import judge, role_of, words
from leanmark.record import REFERENCE_BACKEND, Case, Finding, Measurement, Pass, Status
from leanmark.statistics import rounds, stats
from leanmark.statistics.percentiles import percentiles
from leanmark.store import Records


def build(records: Iterable[Records], intensity: Intensity | None = None) -> tuple[Table, ...]:
    """The tables of all ``records``, in their order; different runs never share a table."""
    return tuple(table for one in records for table in _tables(one, intensity))


def _tables(records: Records, intensity: Intensity | None) -> tuple[Table, ...]:
    contests: dict[tuple[str, ...], list[Case]] = {}
    for case in _subjects(records.measurements):
        contests.setdefault(case.pair_key, []).append(case)
    passes = Passes(records)
    tables = [
        Table(
            run=records.run,
            rows=tuple(_row(case, passes, intensity) for case in _ordered(cases)),
            intensity=intensity,
            findings=records.findings,
        )
        for cases in contests.values()
    ]
    return believed(tables)


def _subjects(measurements: Sequence[Measurement]) -> list[Case]:
    """What took part in a contest, and what was trained to a target before a run was interrupted.

    A model may be prepared only to build another on it: that alone makes no row.
    """
    trained = [one.case for one in measurements if one.pass_name == "quality_run"]
    contests = [one.case for one in measurements if one.pass_name not in ("prepare", "quality_run")]
    seen = {(case.workload, case.technique, case.commit) for case in contests}
    lonely = [case for case in trained if (case.workload, case.technique, case.commit) not in seen]
    return list(dict.fromkeys((*contests, *lonely)))


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


def _row(case: Case, passes: Passes, intensity: Intensity | None) -> Row:
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
    judged = judge(timed.quality, passes.run.plan.thresholds) if timed and timed.quality else None
    before = passes.prepared(reference) if reference else None
    role = role_of(case, reference)
    return Row(
        case=case,
        role=role,
        status=status,
        reason=reason,
        verdict=words(role, status, latency, judged),
        latency=latency,
        cold_start=_metric("latency", "cold_start_s", case, None, passes),
        slowed_share=_slowed_share(timed),
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
        quality_run=quality_run.find(passes.run, passes.all, case, intensity),
        executed={**(prepared.executed if prepared else {}), **(timed.executed if timed else {})},
        missing={name: _absence(one) for name, one in found.items() if one is None or one.status != "ok"},
        findings=_findings(found.values(), (latency, energy)),
    )


def _slowed_share(timed: Measurement | None) -> float | None:
    series = timed.find("latency_s") if timed else None
    blocks = series.blocks if series else ()
    return slowed_share([one.hash_bytes_per_s for one in blocks if one.hash_bytes_per_s is not None])


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


def _metric(name: Pass, metric: str, case: Case, reference: Case | None, passes: Passes) -> Metric | None:
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


def _findings(
    measurements: Iterable[Measurement | None], metrics: Iterable[Metric | None]
) -> tuple[Finding, ...]:
    found = [finding for one in measurements if one is not None for finding in one.findings]
    compared = (metric.comparison for metric in metrics if metric is not None)
    found.extend(finding for one in compared if one is not None for finding in one.findings)
    return tuple(dict.fromkeys(found))
