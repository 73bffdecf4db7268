"""What follows when the A/A sentinel fails: every verdict of the run is taken back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from leanmark.reading.compare import demoted
from leanmark.reading.quality_run import QualityRun, Spread
from leanmark.reading.table import Metric, Row, Table
from leanmark.reading.verdict import words

Compared = TypeVar("Compared", Metric, Spread)


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
    if row.role == "sentinel":
        return row
    latency = _taken_back(row.latency, reason)
    return replace(
        row,
        latency=latency,
        energy=_taken_back(row.energy, reason),
        energy_at_rate=_taken_back(row.energy_at_rate, reason),
        quality_run=_without_verdicts(row.quality_run, reason),
        verdict=words(row.role, row.status, latency, row.judged),
    )


def _without_verdicts(found: QualityRun | None, reason: str) -> QualityRun | None:
    if found is None:
        return None
    return replace(found, time=_taken_back(found.time, reason), energy=_taken_back(found.energy, reason))


def _taken_back(found: Compared | None, reason: str) -> Compared | None:
    if found is None or found.comparison is None:
        return found
    return replace(found, comparison=demoted(found.comparison, reason))
