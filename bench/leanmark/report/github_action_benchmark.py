"""What github-action-benchmark reads as ``customSmallerIsBetter``: one array, one direction.

It stores no other field, takes ``null`` for 0, and compares to the point before: unit and name of a metric
never change. Estimates and what is better when bigger have no place in this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from leanmark.reading.figures import Figure, figures, published, reference
from leanmark.reading.table import Row, Table

METRICS = frozenset(
    {
        "latency_s",
        "peak_memory_bytes",
        "working_memory_bytes",
        "steady_memory_bytes",
        "energy_j",
        "energy_at_rate_j",
    }
)
"""Each is a chart for each case, and every point of it stays in the repository."""


def render(tables: Sequence[Table]) -> str:
    """``tables`` as a JSON array of ``name``, ``value``, ``unit``, ``range`` and ``extra``."""
    entries = [
        {
            "name": f"{row.case.id} {figure.metric}",
            "value": figure.value,
            "unit": figure.unit,
            **_told(row, figure),
        }
        for row in published(tables)
        for figure in figures(row)
        if figure.metric in METRICS
    ]
    return json.dumps(entries, indent=1, allow_nan=False) + "\n"


def _told(row: Row, figure: Figure) -> dict[str, str]:
    """For people: the action shows both beside the value."""
    found = {}
    if figure.interval:
        found["range"] = f"[{figure.interval.low}, {figure.interval.high}]"
    ratio, below = figure.ratio, reference(row)
    if ratio and below:
        bounds = f"[{ratio.low}, {ratio.high}]"
        found["extra"] = f"{figure.verdict}: {ratio.value} {bounds} of {below.label} on {below.backend}"
    return found
