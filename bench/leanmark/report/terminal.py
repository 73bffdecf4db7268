"""Tables for a terminal, at any width from 80 columns up; plain text where output is not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from leanmark import chain
from leanmark.reading.table import Row, Table
from leanmark.report import cells
from leanmark.report.notes import legend, notes

WIDE = 150
"""From this width on each quantity has its own column; below, related ones share a cell of two lines."""

_STYLES = {
    "better": "green",
    "worse": "red",
    "same": "default",
    "inconclusive": "yellow",
    "invalid": "bold red",
    "failed": "bold red",
    "skipped": "dim",
    "baseline": "dim",
}

_NARROW_COLUMNS: tuple[tuple[str, Callable[[Row], Text]], ...] = (
    ("latency\nthroughput", lambda row: _stack(cells.latency(row), cells.throughput(row))),
    ("ratio\n[95 %]\nverdict", lambda row: _stack(*_lines(cells.ratio(row)), cells.speed_verdict(row))),
    ("memory", lambda row: _stack(*_lines(cells.memory_ratio(row)))),
    ("energy\nCO2e", lambda row: _stack(cells.energy(row), cells.co2(row))),
    (
        "quality (change)\n[95 %]\nverdict",
        lambda row: _stack(*_lines(cells.quality_and_change(row)), cells.quality_verdict(row)),
    ),
)

_LONG = 16
"""A link of a chain longer than this goes on two lines where columns are scarce."""


def render(tables: Sequence[Table], console: Console) -> None:
    """Print ``tables`` with their footnotes."""
    if not tables:
        console.print("Nothing was measured.")
        return
    for table in tables:
        console.print()
        console.print(Text(table.title, style="bold"))
        console.print(_wide(table) if console.width >= WIDE else _narrow(table))
        _print_notes(notes(table), console)
    console.print()
    _print_notes(legend(tables), console)


def _print_notes(found: Sequence[str], console: Console) -> None:
    for note in found:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))


def _wide(table: Table) -> Grid:
    grid = _grid()
    grid.add_column("technique", overflow="fold")
    grid.add_column("backend", overflow="fold")
    for header, _ in cells.COLUMNS:
        grid.add_column(header, justify="right", no_wrap=True)
    grid.add_column("verdict", overflow="fold")
    for row in table.rows:
        texts = [row.case.label, row.case.backend, *(cell(row) for _, cell in cells.COLUMNS)]
        parts = [_styled(part) for part in row.verdict.split(" · ")]
        grid.add_row(*map(Text, texts), Text(" · ").join(parts))
    return grid


def _narrow(table: Table) -> Grid:
    """The verdict on speed stands under the ratio, that on quality under the change."""
    grid = _grid(leading=1)
    grid.add_column("technique\nbackend", overflow="fold")
    for header, _ in _NARROW_COLUMNS:
        grid.add_column(header, justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(_subject(row), *(cell(row) for _, cell in _NARROW_COLUMNS))
    return grid


def _grid(leading: int = 0) -> Grid:
    return Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), leading=leading)


def _subject(row: Row) -> Text:
    links = [str(link) for link in chain.parse(row.case.technique)] or [row.case.label.partition("@")[0]]
    lines = [link.replace("(", "\n(") if len(link) > _LONG else link for link in links]
    commit = f"\n@{row.case.commit}" if row.case.commit else ""
    return Text("\n+".join(lines) + f"{commit}\n{row.case.backend}")


def _lines(text: str) -> list[str]:
    """``0.62× [0.60, 0.64]`` as a value and its interval."""
    value, bracket, interval = text.partition(" [")
    return [value, f"[{interval}"] if bracket else [value]


def _stack(*lines: str) -> Text:
    """Lines of one cell; a dash is said once."""
    shown = [line for line in dict.fromkeys(lines) if line]
    if len(shown) > 1 and cells.NOTHING in shown:
        shown.remove(cells.NOTHING)
    return Text("\n").join(_styled(line) for line in shown)


def _styled(text: str) -> Text:
    """Verdict words in colour; ``better`` and ``accuracy worse`` must not look alike."""
    return Text(text, style=_STYLES.get(text.rpartition(" ")[2], "default"))
