"""A summary file: tables, footnotes, the run they are from. For pull requests and job summaries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from leanmark.reading.table import Row, Table
from leanmark.record import Run
from leanmark.report import cells, to_target
from leanmark.report.columns import STEP, Columns
from leanmark.report.details import details, run_facts
from leanmark.report.notes import METHOD, legend, notes


def render(tables: Sequence[Table]) -> str:
    """``tables`` as GitHub-flavoured Markdown."""
    lines = ["# leanmark", ""]
    for table in tables:
        lines += [*_section(table.title, grid(table.rows), notes(table)), *_details(table), ""]
    for one in to_target.sections(tables):
        lines += _section(one.title, grid(one.rows, to_target.COLUMNS), to_target.notes(one.rows))
    lines += ["## Reading the tables", "", *(f"- {_escape(sentence)}" for sentence in legend(tables)), ""]
    for run in {table.run.id: table.run for table in tables}.values():
        lines += [*_run(run), ""]
    lines += ["## How it was measured", "", *(f"- {_escape(sentence)}" for sentence in METHOD)]
    return "\n".join(lines) + "\n"


def grid(rows: Iterable[Row], columns: Columns = STEP) -> Iterator[str]:
    """The table alone, line by line."""
    shown = (*columns.names, *columns.numbers)
    yield _line([*(header for header, _ in shown), "verdict"])
    yield _line([*(":--" for _ in columns.names), *("--:" for _ in columns.numbers), ":--"])
    for row in rows:
        yield _line(map(_escape, [*(cell(row) for _, cell in shown), columns.verdict(row)]))


def _section(title: str, lines: Iterable[str], found: Sequence[str]) -> Iterator[str]:
    yield from (f"## {_escape(title)}", "", *lines, "")
    if found:
        yield from (*(f"- {_escape(note)}" for note in found), "")


def _details(table: Table) -> Iterator[str]:
    yield "<details><summary>All figures of these rows</summary>"
    for row in table.rows:
        yield from ("", f"**{_escape(cells.name(row))}**", "")
        yield from (f"- {_escape(label)}: {_escape(text)}" for label, text in details(row))
    yield from ("", "</details>")


def _run(run: Run) -> Iterator[str]:
    yield from (f"## Run {_escape(run.id)}", "")
    for heading, facts in run_facts(run).items():
        yield f"- {heading}: {_escape('; '.join(f'{name} {text}' for name, text in facts))}"


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _escape(text: str) -> str:
    """``text`` so that Markdown prints it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", " ".join(text.split()))
