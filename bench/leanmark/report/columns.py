"""What the tables of every report show of a row, from left to right."""

from __future__ import annotations

from dataclasses import dataclass

from leanmark.report import cells
from leanmark.report.cells import Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """``numbers`` of a row that has a line to itself, by header; ``stacks`` are what share a cell where the
    page is narrow, the verdict among them."""

    names: tuple[tuple[str, Cell], ...]
    numbers: tuple[tuple[str, Cell], ...]
    status: Cell
    verdict: Cell
    stacks: tuple[tuple[str, tuple[Cell, ...]], ...]


STEP = Columns(
    names=(("technique", lambda row: row.case.label), ("backend", lambda row: row.case.backend)),
    numbers=(
        ("latency", cells.latency),
        ("ratio [95 %]", cells.ratio),
        ("throughput", cells.throughput),
        ("memory", cells.memory_ratio),
        ("energy", cells.energy),
        ("CO2e", cells.co2),
        ("quality (change)", cells.quality_and_change),
    ),
    status=lambda row: row.status,
    verdict=lambda row: row.verdict,
    stacks=(
        ("latency\nthroughput", (cells.latency, cells.throughput)),
        ("ratio\n[95 %]\nverdict", (cells.ratio, cells.speed_verdict)),
        ("memory", (cells.memory_ratio,)),
        ("energy\nCO2e", (cells.energy, cells.co2)),
        ("quality (change)\n[95 %]\nverdict", (cells.quality_and_change, cells.quality_verdict)),
    ),
)
"""One step of a row: the contests."""
