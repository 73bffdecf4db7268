"""Tables for a terminal, at any width from 80 columns up; plain text where output is not a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from leanmark import chain
from leanmark.reading.table import Row, Table
from leanmark.report import cells, to_target
from leanmark.report.columns import STEP, Columns
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

_LONG = 16
"""A link of a chain longer than this goes on two lines where columns are scarce."""


def render(tables: Sequence[Table], console: Console) -> None:
    """Print ``tables`` with their footnotes."""
    if not tables:
        console.print("Nothing was measured.")
        return
    for table in tables:
        _print(table.title, _grid(table.rows, STEP, console.width), notes(table), console)
    for section in to_target.sections(tables):
        grid = _grid(section.rows, to_target.COLUMNS, console.width)
        _print(section.title, grid, to_target.notes(section.rows), console)
    console.print()
    _print_notes(legend(tables), console)


def _print(title: str, grid: Grid, found: Sequence[str], console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(grid)
    _print_notes(found, console)


def _print_notes(found: Sequence[str], console: Console) -> None:
    for note in found:
        console.print(Padding(Text(note, style="dim"), (0, 0, 0, 2)))


def _grid(rows: Sequence[Row], columns: Columns, width: int) -> Grid:
    return _wide(rows, columns) if width >= WIDE else _narrow(rows, columns)


def _wide(rows: Sequence[Row], columns: Columns) -> Grid:
    grid = _blank()
    for header, _ in columns.names:
        grid.add_column(header, overflow="fold")
    for header, _ in columns.numbers:
        grid.add_column(Text(header), justify="right", no_wrap=True)
    grid.add_column("verdict", overflow="fold")
    for row in rows:
        texts = [cell(row) for _, cell in (*columns.names, *columns.numbers)]
        parts = [_styled(part) for part in columns.verdict(row).split(" · ")]
        grid.add_row(*map(Text, texts), Text(" · ").join(parts))
    return grid


def _narrow(rows: Sequence[Row], columns: Columns) -> Grid:
    """The verdict on speed stands under the ratio, that on quality under the change."""
    grid = _blank(leading=1)
    grid.add_column("\n".join(header for header, _ in columns.names), overflow="fold")
    for header, _ in columns.stacks:
        grid.add_column(Text(header), justify="right", no_wrap=True)
    for row in rows:
        stacks = [[line for cell in stack for line in _lines(cell(row))] for _, stack in columns.stacks]
        grid.add_row(_subject(row, columns), *(_stack(*lines) for lines in stacks))
    return grid


def _blank(leading: int = 0) -> Grid:
    return Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), leading=leading)


def _subject(row: Row, columns: Columns) -> Text:
    links = [str(link) for link in chain.parse(row.case.technique)] or [row.case.label.partition("@")[0]]
    lines = [link.replace("(", "\n(") if len(link) > _LONG else link for link in links]
    commit = [f"@{row.case.commit}"] if row.case.commit else []
    others = [cell(row) for _, cell in columns.names[1:]]
    return Text("\n".join(["\n+".join(lines), *commit, *others]))


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
