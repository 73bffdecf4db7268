"""What `leanmark carbon` prints: the carbon intensity of each row, and everything that went into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from leanmark import units
from leanmark.reading import sci
from leanmark.reading.sci import Boundary, Score
from leanmark.reading.table import Row, Table
from leanmark.record import Provenance
from leanmark.report import cells, training_footprint
from leanmark.report.training_footprint import Item


def render(tables: Sequence[Table], boundary: Boundary, console: Console) -> None:
    """One table per contest, what training took, what else must be known, and the boundary."""
    metered = [table for table in tables if any(row.energy for row in table.rows)]
    trained = training_footprint.items(tables, boundary)
    remarks = training_footprint.remarks(tables)
    if not metered and not trained:
        console.print("No energy was metered in these records, so there is no CO2e to state.")
        _print_lines(remarks, console)
        return
    for table in metered:
        _print(f"{table.title} · {sci.UNIT:,} samples", _grid(table, boundary), console)
    if trained:
        _print("making and training, each in a unit of its own", _training(trained, boundary), console)
    _print_lines((*remarks, "", *terms(metered, trained, boundary)), console)


def _print(title: str, grid: Grid, console: Console) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    console.print(grid)


def _print_lines(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(Padding(Text(line, style="dim"), (0, 0, 0, 2)))


def _grid(table: Table, boundary: Boundary) -> Grid:
    grid = _blank(("technique", "backend"), boundary)
    for row in table.rows:
        found = score(row, boundary)
        names = Text(row.case.label), Text(row.case.backend)
        if found is None or row.energy is None:
            grid.add_row(*names, *[cells.NOTHING] * (len(grid.columns) - 2))
        else:
            summary = row.energy.summary
            joules = summary.value * sci.UNIT / row.case.batch
            grid.add_row(*names, *_numbers(joules, summary.provenance, found))
    return grid


def _training(items: Iterable[Item], boundary: Boundary) -> Grid:
    grid = _blank(("of", "unit"), boundary)
    for item in items:
        texts = _numbers(item.joules, item.provenance, item.score)
        missing = len(grid.columns) - 2 - len(texts)
        grid.add_row(Text(item.of), Text(item.unit), *texts, *[cells.NOTHING] * missing)
    return grid


def _blank(names: Sequence[str], boundary: Boundary) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in names:
        grid.add_column(header, overflow="fold")
    for header in ("energy", "operational", *(["embodied [range]", "SCI"] if boundary.embodied else [])):
        grid.add_column(Text(header), justify="right", no_wrap=True)
    return grid


def _numbers(joules: float, provenance: Provenance, found: Score) -> list[Text]:
    """Energy, operational emissions, and where it is counted the embodied share and the whole score."""
    mark = provenance.mark
    texts = [mark + units.joules(joules), mark + units.grams(found.operational_g)]
    if found.embodied_range_g is not None:
        low, high = (units.grams(bound) for bound in found.embodied_range_g)
        texts += [f"~{units.grams(found.embodied_g)} [{low}, {high}]", f"~{units.grams(found.total_g)}"]
    return [Text(text) for text in texts]


def score(row: Row, boundary: Boundary) -> Score | None:
    """Of one functional unit of ``row``; ``None`` where its energy or its time is not known."""
    if row.energy is None or row.latency is None:
        return None
    share = sci.UNIT / row.case.batch
    return sci.score(row.energy.summary.value * share, row.latency.summary.value * share, boundary)


def terms(tables: Sequence[Table], trained: Sequence[Item], boundary: Boundary) -> Iterator[str]:
    """Every term of the score, and what is left out of it."""
    energies = [row.energy for table in tables for row in table.rows if row.energy]
    kinds = {one.summary.provenance for one in energies} | {item.provenance for item in trained}
    stated = ", ".join(sorted(kind.value.replace("_", " ") for kind in kinds))
    if tables:
        yield (
            f"R, the functional unit: {sci.UNIT:,} samples, inferred or trained on; the same for every "
            "technique and backend."
        )
    if trained:
        yield "R of making and training: the unit of its row, and only rows of one unit compare."
    yield f"E: gross energy of all that the meter covers ({stated})."
    if Provenance.ESTIMATED_MODEL in kinds:
        yield "~ is an estimate: it follows time, no sensor was read, and no saving may be read from it."
    hint = (
        "; a stand-in: state the grid with --zone or --intensity"
        if boundary.intensity.is_world_average
        else ""
    )
    yield f"I: {boundary.intensity}, the same for every row{hint}."
    if boundary.pue is None:
        yield "PUE: not applied; --pue states it."
    else:
        yield f"PUE: {boundary.pue:g}, as stated; it multiplies the grams, and no energy above."
    if boundary.embodied is None:
        yield (
            "M: left out, which makes this the operational part of an SCI (ISO/IEC 21031) and no SCI; "
            "--embodied adds it."
        )
    else:
        yield (
            f"M: {boundary.embodied}, by the share of that life that a unit reserves the whole device for. "
            f"An estimate: figures for one device differ by a factor of {sci.EMBODIED_FACTOR:g}, either way."
        )
