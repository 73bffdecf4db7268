"""Every number of a row by the name of its metric, as machines are told it: nothing rounded, one unit. Pure.

An estimate has a name of its own, ``estimated_energy_j``, so that no chart takes one for a measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from leanmark.errors import UsageError
from leanmark.reading import counts
from leanmark.reading.table import Metric, Row, Table
from leanmark.record import Case, Interval, Provenance, Summary, Verdict

_UNITS: Mapping[str, str] = {"s": "s", "bytes": "B", "j": "J", "g": "g"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """``interval`` is of the ``value``, ``ratio`` over the reference of the row, and ``reason`` why there is
    none or no verdict."""

    metric: str
    value: float
    provenance: Provenance = Provenance.MEASURED_COUNTER
    interval: Interval | None = None
    ratio: Interval | None = None
    verdict: Verdict | None = None
    reason: str | None = None

    @property
    def unit(self) -> str:
        return unit(self.metric)


def unit(metric: str) -> str:
    """``s``, ``B``, ``J`` or ``g`` by the end of the name; ``1`` for counts and shares."""
    return _UNITS.get(metric.rpartition("_")[2], "1")


def identity(case: Case) -> dict[str, object]:
    """What tells one case from another, over time: neither the run nor the commit."""
    return {
        "workload": case.workload,
        "phase": case.phase,
        "batch": case.batch,
        "device": case.device,
        "threads": case.threads,
        "backend": case.backend,
        "technique": replace(case, commit=None).label,
    }


def figures(row: Row) -> tuple[Figure, ...]:
    """All numbers of ``row``: none where it is failed, invalid or skipped."""
    if row.status != "ok":
        return ()
    return (*_metrics(row), *_tail(row), *_carbon(row), *_counts(row), *_model(row), *_quality(row))


def reference(row: Row) -> Case | None:
    """What ``row`` is compared to."""
    compared = (metric.comparison for metric in _compared(row) if metric is not None)
    return next((one.baseline for one in compared if one is not None), None)


def published(tables: Sequence[Table]) -> list[Row]:
    """What a dashboard follows over time, by the id of its case: neither A/A rows nor another commit's.

    Raises:
        UsageError: a case is in two runs, and would have two values.
    """
    rows = [
        row
        for table in tables
        for row in table.rows
        if row.status == "ok" and row.role != "sentinel" and row.case.commit is None
    ]
    for name, times in Counter(row.case.id for row in rows).items():
        if times > 1:
            raise UsageError(f"{name} is in {times} of these records: export one run at a time, or as csv")
    return rows


def absent(tables: Sequence[Table]) -> str | None:
    """How many cases have no number, in words; ``None`` where all have one."""
    rows = [row for table in tables for row in table.rows]
    without = Counter(row.status for row in rows if row.status != "ok")
    if not without:
        return None
    told = ", ".join(f"{times} {status}" for status, times in sorted(without.items()))
    return f"{without.total()} of {len(rows)} cases have no number: {told}"


def _compared(row: Row) -> tuple[Metric | None, ...]:
    memory = (row.peak_memory, row.working_memory, row.steady_memory)
    return (row.latency, *memory, row.energy, row.energy_at_rate)


def _metrics(row: Row) -> Iterator[Figure]:
    for metric in (*_compared(row), row.cold_start, row.import_memory):
        if metric is None:
            continue
        compared, figure = metric.comparison, of(metric.summary)
        if compared is None:
            yield figure
        else:
            yield replace(figure, ratio=compared.ratio, verdict=compared.verdict, reason=compared.reason)
    if row.device is not None:
        for summary in (row.device.hot, row.device.cold, row.device.host_overhead):
            if summary is not None:
                yield of(summary)


def of(summary: Summary) -> Figure:
    """``summary`` under the name that machines know it by."""
    estimated = summary.provenance is Provenance.ESTIMATED_MODEL
    return Figure(
        metric="estimated_" * estimated + summary.metric,
        value=summary.value,
        interval=summary.interval,
        provenance=summary.provenance,
    )


def _tail(row: Row) -> Iterator[Figure]:
    for one in row.percentiles:
        if one.interval is not None:
            name = f"latency_{one.name.replace('.', '')}_s"
            yield Figure(metric=name, value=one.interval.value, interval=one.interval)


def _carbon(row: Row) -> Iterator[Figure]:
    """Whatever the energy is, the intensity of the grid is no measurement."""
    if row.co2_g is not None:
        yield Figure(metric="estimated_co2_g", value=row.co2_g, provenance=Provenance.ESTIMATED_MODEL)


def _counts(row: Row) -> Iterator[Figure]:
    for metric, count in row.counted.counts.items() if row.counted else ():
        judged = count.before is not None or count.reason is not None
        verdict = counts.judge(count, counts.tolerance(metric)) if judged else None
        yield Figure(metric=metric, value=count.value, verdict=verdict, reason=count.reason)


def _model(row: Row) -> Iterator[Figure]:
    if row.model is not None:
        yield Figure(metric="model_size_bytes", value=row.model.size_bytes)
        yield Figure(metric="model_parameters", value=row.model.parameters)
        yield Figure(metric="model_macs", value=row.model.macs)


def _quality(row: Row) -> Iterator[Figure]:
    if row.judged is not None:
        yield Figure(
            metric=row.judged.quality.metric,
            value=row.judged.quality.value,
            interval=row.judged.interval,
            verdict=None if row.role == "baseline" else row.judged.verdict,
        )
