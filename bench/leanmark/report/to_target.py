"""Training to a quality target: a table of its own, with a row for each technique of a workload.

Whole training runs belong to a workload and a technique, whatever phase, batch and backend a row measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from leanmark import units
from leanmark.plan import FULL
from leanmark.reading.compare import ESTIMATED
from leanmark.reading.quality_run import QualityRun, Spread
from leanmark.reading.table import Row, Table
from leanmark.record import Comparison
from leanmark.report import cells
from leanmark.report.columns import Columns
from leanmark.statistics.stats import MIN_PROCESSES

READING = (
    "Training to a target: time and energy of a whole run, looking at the quality after each epoch included; "
    "[95 %] over the seeds, or (the range) of seeds too few for an interval. Runs of equal seed began with "
    "the same weights and order of samples, and are compared in pairs."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One workload of one run: ``rows`` of other techniques and commits, each with its training runs."""

    title: str
    rows: tuple[Row, ...]


def sections(tables: Iterable[Table]) -> list[Section]:
    """The training runs among ``tables``, each told once."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for table in tables:
        for row in table.rows:
            if row.quality_run is not None:
                rows = found.setdefault((table.run.id, row.case.workload), {})
                rows.setdefault(row.case.label, row)
    return [
        Section(title=f"{workload} · training to {_goal(rows.values())}", rows=tuple(rows.values()))
        for (_, workload), rows in found.items()
    ]


def notes(rows: Sequence[Row]) -> list[str]:
    """Why there is no number, what verdicts lack, and what else the columns do not show."""
    known = [(row.case.label, row.quality_run) for row in rows if row.quality_run]
    found = list(cells.gathered((text, name) for name, one in known for text in _remarks(one)))
    if any(row.quality_run and row.quality_run.device != row.case.device for row in rows):
        found.append("Trained on the processor, where models are made")
    if any(one.device != "cpu" and one.energy for _, one in known):
        found.append("Energy is the board's alone, without that of its host")
    return found


def _remarks(known: QualityRun) -> Iterator[str]:
    if known.time is None:
        yield f"{known.status}: {known.refusal}"
        return
    yield from known.doubts
    if known.looking:
        yield f"{part(known.looking)} of the time went into looking at the quality"
    if known.earlier:
        yield f"{part(known.earlier)} of the time went into the trained model that they began with"
    compared = known.time.comparison
    yield from _unsettled("time", compared)
    if known.energy is None:
        yield str(known.refusal)
        return
    if known.energy.doubt is not None:
        yield f"energy ±{units.joules(known.energy.doubt)} by the meter"
    if compared is None or known.energy.comparison is None:
        return
    if known.energy.comparison.reason not in (ESTIMATED, compared.reason):
        yield from _unsettled("energy", known.energy.comparison)


def _unsettled(quantity: str, compared: Comparison | None) -> Iterator[str]:
    if compared is None:
        return
    if compared.reason:
        few = compared.ratio is None and 0 < compared.processes < MIN_PROCESSES
        hint = f"; --profile full trains {FULL.target_seeds}" if few else ""
        yield f"{quantity} {compared.verdict}: {compared.reason}{hint}"
    if compared.detectable and not compared.demoted and compared.verdict in ("same", "inconclusive"):
        yield f"smallest effect on {quantity} found with 80 % probability: {compared.detectable:.1%}"


def part(share: float) -> str:
    """Of a whole: what is there is never told as nothing."""
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def _goal(rows: Iterable[Row]) -> str:
    """``accuracy 97.0 % · cpu``; of runs that never began, no more than that there was one."""
    runs = [row.quality_run for row in rows if row.quality_run]
    devices = " and ".join(dict.fromkeys(one.device for one in runs))
    for known in runs:
        if known.metric is not None and known.target is not None:
            return f"{known.metric} {units.quality(known.metric, known.target)} · {devices}"
    return f"a quality target · {devices}"


def _time(row: Row) -> Spread | None:
    return row.quality_run.time if row.quality_run else None


def _energy(row: Row) -> Spread | None:
    return row.quality_run.energy if row.quality_run else None


def _value(found: Spread | None, unit: cells.Unit) -> str:
    return cells.NOTHING if found is None else found.summary.provenance.mark + unit(found.summary.value)


def _over_seeds(found: Spread | None, unit: cells.Unit) -> str:
    """``[1.05 s, 1.37 s]``, or ``(1.04 s to 2.80 s)``: an interval, or the range of fewer seeds."""
    if found is None or found.summary.count == 1:
        return ""
    if found.summary.interval is not None:
        return cells.between(found.summary.interval, unit)
    return f"({unit(found.least)} to {unit(found.most)})"


def _ratio(found: Spread | None) -> str:
    if found is None or found.comparison is None:
        return cells.NOTHING
    plain = None if found.comparison.reason == ESTIMATED else found.plain_ratio
    return cells.comparison(found.comparison) if plain is None else units.ratio(plain) + cells.BARE


def _seconds(row: Row) -> str:
    return _value(_time(row), units.seconds)


def _seconds_over_seeds(row: Row) -> str:
    return _over_seeds(_time(row), units.seconds)


def _joules(row: Row) -> str:
    return _value(_energy(row), units.joules)


def _joules_over_seeds(row: Row) -> str:
    return _over_seeds(_energy(row), units.joules)


def time(row: Row) -> str:
    return f"{_seconds(row)} {_seconds_over_seeds(row)}".strip()


def time_ratio(row: Row) -> str:
    return _ratio(_time(row))


def energy(row: Row) -> str:
    return f"{_joules(row)} {_joules_over_seeds(row)}".strip()


def energy_ratio(row: Row) -> str:
    return _ratio(_energy(row))


def co2(row: Row) -> str:
    known = row.quality_run
    if known is None or known.energy is None or known.co2_g is None:
        return cells.NOTHING
    return known.energy.summary.provenance.mark + units.grams(known.co2_g)


def epochs(row: Row) -> str:
    """``6 to 9 of 20``: those of the runs, of as many as the recipe has."""
    known = row.quality_run
    if known is None or not known.epochs:
        return cells.NOTHING
    least, most = min(known.epochs), max(known.epochs)
    return f"{least} of {known.longest}" if least == most else f"{least} to {most} of {known.longest}"


def reached(row: Row) -> str:
    """``3 of 3``: how many of the seeds got to the target."""
    known = row.quality_run
    return f"{known.reached} of {len(known.epochs)}" if known and known.epochs else cells.NOTHING


def _seeds(row: Row) -> str:
    return f"{reached(row)} seeds there" if row.quality_run and row.quality_run.epochs else cells.NOTHING


def verdict(row: Row) -> str:
    """Words such as ``better · energy same``."""
    known = row.quality_run
    if known is None or known.time is None:
        return "not reached" if known and known.epochs else known.status if known else ""
    if known.time.comparison is None:
        return "baseline" if row.case.is_baseline or row.case.commit else "no baseline"
    compared = known.energy.comparison if known.energy else None
    told = f" · energy {compared.verdict}" if compared and compared.ratio else ""
    return known.time.comparison.verdict + told


COLUMNS = Columns(
    names=(("technique", lambda row: row.case.label),),
    numbers=(
        ("time to target", time),
        ("ratio [95 %]", time_ratio),
        ("energy to target", energy),
        ("ratio [95 %]", energy_ratio),
        ("CO2e", co2),
        ("epochs", epochs),
        ("seeds there", reached),
    ),
    status=lambda row: row.quality_run.status if row.quality_run else row.status,
    verdict=verdict,
    stacks=(
        ("time to target\nover seeds\nepochs", (_seconds, _seconds_over_seeds, epochs, _seeds)),
        ("ratio\n[95 %]\nverdict", (time_ratio, lambda row: verdict(row).partition(" · ")[0])),
        ("energy to target\nover seeds\nCO2e", (_joules, _joules_over_seeds, co2)),
        ("ratio\n[95 %]\nverdict", (energy_ratio, lambda row: verdict(row).partition(" · ")[2])),
    ),
)
