"""Tidy CSV: a line for each case and metric, and one with the reason where there is no number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from leanmark import store
from leanmark.reading.figures import Figure, figures, identity, reference, unit
from leanmark.reading.table import Row, Table
from leanmark.record import Interval

COLUMNS = (
    "run", "started", "commit", "machine",
    "workload", "phase", "batch", "device", "threads", "backend", "technique",
    "metric", "unit", "value", "low", "high", "ratio", "ratio_low", "ratio_high", "verdict", "provenance",
    "baseline", "baseline_backend", "status", "reason",
)  # fmt: skip

_OWED: Mapping[str, str] = {
    "latency": "latency_s",
    "memory": "working_memory_bytes",
    "energy": "energy_j",
}
"""What a pass would have measured."""

Fields = Mapping[str, object]


def render(tables: Sequence[Table]) -> str:
    """``tables`` as CSV with a header. ``commit`` is that of the code the case ran; ``low`` and ``high`` are
    95 % intervals of what stands before them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row in table.rows:
            writer.writerows({**_case(table, row), **each} for each in _lines(row))
    return out.getvalue()


def _case(table: Table, row: Row) -> Fields:
    run, case, compared_to = table.run, row.case, reference(row)
    return {
        "run": run.id,
        "started": run.started,
        "commit": case.commit or run.commit or "",
        "machine": store.machine_slug(run.environment),
        **identity(case),
        "baseline": compared_to.label if compared_to else "",
        "baseline_backend": compared_to.backend if compared_to else "",
        "status": row.status,
        "reason": row.reason or "",
    }


def _lines(row: Row) -> Iterator[Fields]:
    if row.status != "ok":
        yield {}
        return
    for figure in figures(row):
        yield _numbers(figure)
    for name, reason in row.missing.items():
        if name in _OWED:
            yield {"metric": _OWED[name], "unit": unit(_OWED[name]), "reason": reason}


def _numbers(figure: Figure) -> Fields:
    value, ratio = figure.interval, figure.ratio
    return {
        "metric": figure.metric,
        "unit": figure.unit,
        "value": figure.value,
        **_bounds("", value),
        "ratio": ratio.value if ratio else "",
        **_bounds("ratio_", ratio),
        "verdict": figure.verdict or "",
        "provenance": figure.provenance,
        "reason": figure.reason or "",
    }


def _bounds(prefix: str, interval: Interval | None) -> Fields:
    return {f"{prefix}low": interval.low, f"{prefix}high": interval.high} if interval else {}
