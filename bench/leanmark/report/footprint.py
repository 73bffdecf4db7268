"""What `leanmark carbon` prints: the carbon intensity of each row, and everything that went into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

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
from leanmark.report import cells


def render(tables: Sequence[Table], boundary: Boundary, console: Console) -> None:
    """One table per contest, the training runs, and the boundary."""
    metered = [table for table in tables if any(row.energy for row in table.rows)]
    if not metered:
        console.print("No energy was metered in these records, so there is no CO2e to state.")
        return
    for table in metered:
        console.print()
        console.print(Text(table.title, style="bold"))
        console.print(_grid(table, boundary))
    once = dict.fromkeys((*making(metered, boundary), *training(metered, boundary)))
    for line in (*once, "", *terms(metered, boundary)):
        console.print(Padding(Text(line, style="dim"), (0, 0, 0, 2)))


def _grid(table: Table, boundary: Boundary) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = ["energy", "operational", *(["embodied [range]", "SCI"] if boundary.embodied else [])]
    for header in ("technique", "backend"):
        grid.add_column(header, overflow="fold")
    for header in numbers:
        grid.add_column(Text(header), justify="right", no_wrap=True)
    for row in table.rows:
        texts = _numbers(row, boundary) or [cells.NOTHING] * len(numbers)
        grid.add_row(*map(Text, (row.case.label, row.case.backend, *texts)))
    return grid


def _numbers(row: Row, boundary: Boundary) -> list[str]:
    """Energy, operational emissions, and where it is counted the embodied share and the whole score."""
    found = score(row, boundary)
    if found is None or row.energy is None:
        return []
    mark = row.energy.summary.provenance.mark
    joules = row.energy.summary.value * sci.UNIT / row.case.batch
    texts = [mark + units.joules(joules), mark + units.grams(found.operational_g)]
    if found.embodied_range_g is not None:
        low, high = (units.grams(bound) for bound in found.embodied_range_g)
        texts += [f"~{units.grams(found.embodied_g)} [{low}, {high}]", f"~{units.grams(found.total_g)}"]
    return texts


def score(row: Row, boundary: Boundary) -> Score | None:
    """Of one functional unit of ``row``; ``None`` where its energy or its time is not known."""
    if row.energy is None or row.latency is None:
        return None
    share = sci.UNIT / row.case.batch
    return sci.score(row.energy.summary.value * share, row.latency.summary.value * share, boundary)


def making(tables: Iterable[Table], boundary: Boundary) -> Iterator[str]:
    """What each model emitted once, when it was trained or changed."""
    seen: set[tuple[str, str, str | None]] = set()
    for row in (row for table in tables for row in table.rows):
        name = row.case.workload, row.case.technique, row.case.commit
        if name in seen or row.cost is None or not row.cost.energy_j:
            continue
        seen.add(name)
        mark = row.cost.energy_provenance.mark
        text = _emitted(row.cost.energy_j, row.cost.time_s, mark, _where_made(row, boundary))
        yield f"{row.case.workload}, making {row.case.label} once: {text}"


def training(tables: Iterable[Table], boundary: Boundary) -> Iterator[str]:
    """What a training run to a quality target emits: the mean of its runs."""
    for row in (row for table in tables for row in table.rows):
        known = row.quality_run
        if known is None or known.energy is None or known.time is None:
            continue
        joules, seconds = known.energy.summary, known.time.summary
        text = _emitted(joules.value, seconds.value, joules.provenance.mark, _where_made(row, boundary))
        goal = f"{known.metric} {units.quality(known.metric or '', known.target or 0.0)}"
        yield f"{row.case.workload}, training {row.case.label} to {goal}: {text}"


def _where_made(row: Row, boundary: Boundary) -> Boundary:
    """Models are made on the processor, which says nothing of another device's life."""
    return boundary if row.case.device == "cpu" else replace(boundary, embodied=None)


def _emitted(joules: float, seconds: float, mark: str, boundary: Boundary) -> str:
    found = sci.score(joules, seconds, boundary)
    text = f"{mark}{units.joules(joules)}, {mark}{units.grams(found.operational_g)} operational"
    if found.embodied_g is not None:
        text += f", ~{units.grams(found.embodied_g)} embodied"
    return text


def terms(tables: Iterable[Table], boundary: Boundary) -> Iterator[str]:
    """Every term of the score, and what is left out of it."""
    energies = [row.energy for table in tables for row in table.rows if row.energy]
    kinds = {one.summary.provenance for one in energies}
    stated = ", ".join(sorted(kind.value.replace("_", " ") for kind in kinds))
    yield f"R, the functional unit: {sci.UNIT:,} samples, inferred or trained on; the same for every row."
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
