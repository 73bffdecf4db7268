"""What `leanmark carbon` says of making and training models: of a step, an epoch, a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from leanmark import units
from leanmark.reading import sci
from leanmark.reading.sci import Boundary, Score
from leanmark.reading.table import Row, Table
from leanmark.record import Provenance
from leanmark.report import cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """``joules`` and ``seconds`` of one ``unit`` with the model ``of``; ``boundary`` is that of the device
    that it was done on."""

    of: str
    unit: str
    joules: float
    seconds: float
    provenance: Provenance
    boundary: Boundary

    @property
    def score(self) -> Score:
        return sci.score(self.joules, self.seconds, self.boundary)

    def each(self, unit: str, count: float) -> Item:
        """One of the ``count`` equal parts of it."""
        return replace(self, unit=unit, joules=self.joules / count, seconds=self.seconds / count)


def items(tables: Iterable[Table], boundary: Boundary) -> list[Item]:
    """Steps that were metered, then what making each model took once, then runs to a quality target."""
    rows = [row for table in tables for row in table.rows if not row.case.sentinel]
    found = (item for each in (_steps, _making, _to_target) for row in rows for item in each(row, boundary))
    told: dict[tuple[str, str], Item] = {}
    for item in found:
        told.setdefault((item.of, item.unit), item)  # a model is made once for many rows
    return list(told.values())


def remarks(tables: Sequence[Table]) -> list[str]:
    """What has no grams, and why; and where models are made."""
    rows = [row for table in tables for row in table.rows if not row.case.sentinel]
    found = list(cells.gathered(dict.fromkeys(pair for row in rows for pair in _gaps(row))))
    if any(row.case.device != "cpu" and row.cost for row in rows):
        found.append("Making a model is the processor's, whatever it runs on.")
    return found


def _steps(row: Row, boundary: Boundary) -> Iterator[Item]:
    if row.case.phase != "training" or row.energy is None or row.latency is None:
        return
    yield Item(
        of=f"{row.case.workload} {cells.name(row)}",
        unit=f"a step of {row.case.batch} sample{'s' * (row.case.batch > 1)}",
        joules=row.energy.summary.value,
        seconds=row.latency.summary.value,
        provenance=row.energy.summary.provenance,
        boundary=boundary,
    )


def _making(row: Row, boundary: Boundary) -> Iterator[Item]:
    made = row.cost
    if made is None or not made.energy_j:
        return
    whole = Item(
        of=_model(row),
        unit="making it once",
        joules=made.energy_j,
        seconds=made.time_s,
        provenance=made.energy_provenance,
        boundary=_on("cpu", row, boundary),
    )
    yield whole
    if made.epochs and made.steps:
        yield whole.each(f"of it, each of {made.epochs} epochs", made.epochs)
        yield whole.each(f"of it, each of {units.count(made.steps)} steps", made.steps)


def _to_target(row: Row, boundary: Boundary) -> Iterator[Item]:
    known = row.quality_run
    if known is None or known.energy is None or known.time is None:
        return
    runs = len(known.epochs)
    mean = f", mean of {runs} runs" if runs > 1 else ""
    whole = Item(
        of=_model(row),
        unit=f"training to {known.metric} {units.quality(known.metric or '', known.target or 0.0)}{mean}",
        joules=known.energy.summary.value,
        seconds=known.time.summary.value,
        provenance=known.energy.summary.provenance,
        boundary=_on(known.device, row, boundary),
    )
    yield whole
    if not known.earlier:  # else the epochs are those of the last training alone
        yield whole.each("of it, an epoch with its look at the quality", sum(known.epochs) / runs)


def _model(row: Row) -> str:
    return f"{row.case.workload} {row.case.label}"


def _on(device: str, row: Row, boundary: Boundary) -> Boundary:
    """What was done on another device than the row's is no part of its life."""
    return boundary if row.case.device == device else replace(boundary, embodied=None)


def _gaps(row: Row) -> Iterator[tuple[str, str]]:
    """A reason, and what it is the reason of."""
    case, known = row.case, row.quality_run
    if row.energy is None:
        reason = f"{row.status}: {row.reason}" if row.status != "ok" else row.missing.get("energy")
        yield f"no grams of a step: {reason or 'its energy is not in the record'}", case.id
    if row.cost is not None and row.cost.energy_j is None and row.cost.energy_reason:
        yield f"no grams of making it: {row.cost.energy_reason}", _model(row)
    if known is not None and known.energy is None:
        reason = known.refusal if known.status == "ok" else f"{known.status}: {known.refusal}"
        yield f"no grams of training it to a target: {reason}", _model(row)
