"""What follows when the A/A sentinel fails: every verdict of the run is taken back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leanmark.reading import quality_run
from leanmark.reading.table import Metric, Row, Table
from leanmark.reading.verdict import words


def believed(tables: Sequence[Table]) -> tuple[Table, ...]:
    """``tables``, without verdicts where equal code came out as different in one of them."""
    failed = [row for table in tables for row in table.rows if _failed(row)]
    return tuple(_demoted(table, failed) if failed else table for table in tables)


def _failed(row: Row) -> bool:
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
        quality_run=quality_run.without_verdict(row.quality_run, reason) if row.quality_run else None,
        verdict=words(row.role, row.status, latency, row.judged),
    )


def _taken_back(metric: Metric | None, reason: str) -> Metric | None:
    compared = metric.comparison if metric else None
    if metric is None or compared is None:
        return metric
    without = replace(compared, verdict="inconclusive", reason=reason, demoted=True)
    return replace(metric, comparison=without)
