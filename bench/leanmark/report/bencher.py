"""Bencher Metric Format: case, measure, value with its bounds.

Unit and direction of a measure are kept by Bencher: its own ``latency`` is in nanoseconds; the names of all
others end in their unit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from leanmark.reading.figures import Figure, figures, published
from leanmark.reading.table import Table

_NS_PER_S = 1e9


def render(tables: Sequence[Table]) -> str:
    """``tables`` as a JSON object of objects; https://bencher.dev/bmf.json is its schema."""
    found = {
        row.case.id: dict(_measure(figure) for figure in numbers)
        for row in published(tables)
        if (numbers := figures(row))
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def _measure(figure: Figure) -> tuple[str, dict[str, float]]:
    latency = figure.metric == "latency_s"
    name = "latency" if latency else figure.metric.replace("_", "-")
    scale = _NS_PER_S if latency else 1
    bounds = figure.interval
    return name, {
        "value": figure.value * scale,
        **({"lower_value": bounds.low * scale, "upper_value": bounds.high * scale} if bounds else {}),
    }
