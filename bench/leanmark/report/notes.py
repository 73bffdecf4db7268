"""What a reader must know to read a table: only what applies to it is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import mean

from leanmark import units
from leanmark.machine.core_speed import WHOLE
from leanmark.machine.disturbance import UNOBSERVED
from leanmark.reading.compare import ESTIMATED
from leanmark.reading.quality_run import Spread
from leanmark.reading.table import Metric, Row, Table
from leanmark.record import NO_COUNTER, Comparison, Provenance
from leanmark.report import cells, to_target
from leanmark.statistics import multiplicity
from leanmark.thresholds import Judged, Thresholds

WORTH_TELLING = 0.05
"""Of the blocks, in which the core was slowed."""

METHOD = (
    "Every variant runs in its own processes, pinned to the same cores; only one runs at a time. In each "
    "round every variant runs one block of steps, in random order.",
    "A ratio is candidate over baseline. Per process it is the median of the rounds; the interval (95 %, "
    "nominal) is a t interval over at least five processes.",
    "A verdict needs the whole interval: beyond the margin for better or worse, inside it for same. "
    "Anything else is inconclusive, and says what would settle it.",
    "A training step is forward, backward and update of the changed model on the task's own loss.",
    "Latency, memory and energy are separate passes. Working memory is the peak less what the imports took; "
    "on a GPU, the peak of its allocator.",
    "Quality is judged on the very model that was timed. Its change against the unchanged model is paired "
    "by test sample.",
    "What ran (operators, threads, device) is asserted before and after measuring; where it is not what the "
    "row says, the row is invalid and carries no number.",
)


def notes(table: Table) -> list[str]:
    """What is true of single rows of ``table``: those without numbers, then doubts."""
    return [
        *_statuses(table.rows),
        *_gaps(table.rows),
        *_energy_ratios(table.rows),
        *_unsettled(table.rows),
        *_detectable(table.rows),
        *_findings(table),
    ]


def legend(tables: Sequence[Table]) -> list[str]:
    """What was found beside ``tables``, then how to read them: ratios, marks, units. Each sentence once."""
    sentences = (
        sentence
        for table in tables
        for sentence in (*_ratios(table), *_reading(table.rows), *_estimates(table.rows), *_co2(table))
    )
    rows = [row for table in tables for row in table.rows]
    return [*_noise(rows), *_slowed(rows), *_together(rows), *dict.fromkeys(sentences), *_unobserved(rows)]


def _unobserved(rows: Iterable[Row]) -> Iterator[str]:
    """What of the machine no row could be checked against."""
    messages = (one.message for row in rows for one in row.findings if one.code == UNOBSERVED)
    yield from (f"Disturbances: {message}." for message in dict.fromkeys(messages))


def _noise(rows: Iterable[Row]) -> Iterator[str]:
    """What the baseline against itself came to: this machine's noise floor."""
    for row in rows:
        compared = row.latency.comparison if row.latency else None
        if row.role != "sentinel" or compared is None or compared.ratio is None:
            continue
        ratio = compared.ratio
        found = (
            f"; the smallest effect that such a comparison finds with 80 % probability is "
            f"{compared.detectable:.1%}"
            if compared.detectable
            else ""
        )
        yield (
            f"A/A, {row.case.workload} {row.case.phase} batch {row.case.batch}: the baseline against itself "
            f"came out at {units.ratio_interval(ratio.value, ratio.low, ratio.high)}{found}."
        )


def _slowed(rows: Iterable[Row]) -> Iterator[str]:
    """How much of the time the core was not all there."""
    shares = [row.slowed_share for row in rows if row.slowed_share is not None]
    if shares and mean(shares) >= WORTH_TELLING:
        yield (
            f"In {mean(shares):.0%} of the blocks the core had less than {WHOLE:.0%} of its best speed, told "
            "by hashing right after each: its clock fell, or something else shared the core. Ratios compare "
            "blocks of one round; times are those of a machine that is shared like this."
        )


def _together(rows: Iterable[Row]) -> Iterator[str]:
    """How many verdicts of the whole run hold at once."""
    compared = [(row, one) for row, one in _compared(rows) if row.role != "sentinel" and one.ratio]
    kept = multiplicity.holm([multiplicity.p_value(one) for _, one in compared])
    called = [one.verdict in ("better", "worse") for _, one in compared]
    if len(called) < 2 or not any(called):
        return
    both = sum(was_called and holds for was_called, holds in zip(called, kept, strict=True))
    yield (
        f"{len(compared)} latencies were compared and {sum(called)} called better or worse; {both} of these "
        f"hold together at a family-wise error rate of {multiplicity.FAMILY_WISE:.0%} (Holm)."
    )


def _statuses(rows: Iterable[Row]) -> Iterator[str]:
    """Why rows have no number, gathered by reason."""
    yield from _gathered((f"{row.status}: {row.reason}", row) for row in rows if row.status != "ok")


def _gaps(rows: Iterable[Row]) -> Iterator[str]:
    """Passes that left no number in a row that has others, gathered by reason."""
    gaps = (
        (f"{name} not measured: {reason}", row)
        for row in rows
        if row.status == "ok" and row.role != "sentinel"
        for name, reason in row.missing.items()
        if name != "prepare"
    )
    yield from _gathered(gaps)


def _energy_ratios(rows: Iterable[Row]) -> Iterator[str]:
    """What measured energy came to: the column shows joules only."""
    for row, compared in _energies(rows):
        yield f"{cells.name(row)}: energy {cells.comparison(compared)}, {compared.verdict}"


def _unsettled(rows: Iterable[Row]) -> Iterator[str]:
    """What is open about techniques; what the baseline against itself came to is in the legend."""
    yield from _gathered(
        (f"{compared.verdict}: {compared.reason}", row)
        for row, compared in _compared(rows)
        if compared.reason and row.role != "sentinel"
    )


def _detectable(rows: Iterable[Row]) -> Iterator[str]:
    """How blind each comparison was, for those that found no difference."""
    found = [
        f"{cells.name(row)} {compared.detectable:.1%}"
        for row, compared in _compared(rows)
        if compared.detectable and not compared.demoted and row.role != "sentinel"
        if compared.verdict in ("same", "inconclusive")
    ]
    if found:
        effects = ", ".join(found)
        yield f"Smallest effect on latency that would have been found with 80 % probability: {effects}"


def _findings(table: Table) -> Iterator[str]:
    yield from (finding.message for finding in table.findings)
    said = (
        (finding.message, cells.name(row))
        for row in table.rows
        for finding in row.findings
        if finding.code not in (UNOBSERVED, NO_COUNTER)
    )
    yield from cells.gathered(said, [cells.name(row) for row, _ in _compared(table.rows)])


def _gathered(pairs: Iterable[tuple[str, Row]]) -> Iterator[str]:
    return cells.gathered((text, cells.name(row)) for text, row in pairs)


def _ratios(table: Table) -> Iterator[str]:
    """What is divided by what."""
    compared = [one for _, one in _compared(table.rows)]
    if not compared:
        return
    run, quantities = table.run, "to fp32 on the same backend"
    if run.against is not None:
        quantities = (
            f"of this tree ({run.commit}) to the same case at {run.against}, each built and its models made "
            "by its own code"
        )
    yield f"Ratios are {quantities}; below 1 is better. {_margins(run.plan.thresholds)}"


_AMOUNTS: Mapping[Judged, Callable[[float], str]] = {
    "latency": units.seconds,
    "memory": units.size,
    "energy": units.joules,
}


def _margins(thresholds: Thresholds) -> str:
    """The differences that count, and those too small to: as the run's plan had them."""
    shares: dict[str, list[str]] = {}
    for kind in _AMOUNTS:
        shares.setdefault(f"{100 * thresholds.margin(kind):g} %", []).append(kind)
    points = 100 * thresholds.margin("accuracy")
    margins = [f"{share} for {_listed(kinds)}" for share, kinds in shares.items()]
    margins.append(f"{points:g} percentage point{'' if points == 1 else 's'} for accuracy")
    floors = [
        f"{unit(thresholds.floors[kind])} of {kind}"
        for kind, unit in _AMOUNTS.items()
        if kind in thresholds.floors
    ]
    never = f" Less than {' or '.join(floors)} never counts." if floors else ""
    return f"Margins: {', '.join(margins)}.{never}"


def _listed(names: Sequence[str]) -> str:
    """``latency, memory and energy``."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _reading(rows: tuple[Row, ...]) -> Iterator[str]:
    if any(row.quality_run for row in rows):
        yield to_target.READING
    compared = [one for _, one in _compared(rows)]
    if any(row.working_memory for row in rows):
        on_host = all(row.case.device == "cpu" for row in rows)
        peak = "the peak less what the imports took" if on_host else "the peak of the GPU's allocator"
        yield f"Memory is working memory, {peak}, as a ratio."
        if on_host and any(row.role == "backend switch" and row.working_memory for row in rows):
            yield "Across backends, memory also differs by the libraries that one loads only with a model."
    for row in rows:
        if row.role == "backend switch":
            yield f"{cells.name(row)} is compared to fp32 · eager: a backend switch, no technique."
    compared += [one for _, one in _energies(rows)]
    few = [one for one in compared if one.ratio and one.ratio.scope == "within-process"]
    if few:
        widest = max(few, key=lambda one: one.allowance)
        count = widest.processes
        yield (
            f"{cells.WITHIN} within-process: the interval holds for the {count} "
            f"process{'es' if count > 1 else ''} that ran. Its margin is widened by {widest.allowance:.1%}, "
            "an allowance for the spread between processes."
        )
    if any(
        ratio(row).endswith(cells.BARE)
        for row in rows
        for ratio in (cells.memory_ratio, to_target.time_ratio)
    ):
        yield f"{cells.BARE} a ratio of too few processes for an interval, so without a verdict."


def _estimates(rows: Iterable[Row]) -> Iterator[str]:
    energies = list(_joules(rows))
    if any(one.summary.provenance is Provenance.ESTIMATED_MODEL for one in energies):
        yield "~ is an estimate by a model of power; no sensor was read."
    reasons = dict.fromkeys(one.message for row in rows for one in row.findings if one.code == NO_COUNTER)
    yield from (f"Why energy is not measured: {reason}." for reason in reasons)
    if any(one.comparison and one.comparison.reason == ESTIMATED for one in energies):
        yield f"No energy ratio: {ESTIMATED}."


def _joules(rows: Iterable[Row]) -> Iterator[Metric | Spread]:
    """Of a step, and of training to a target."""
    for row in rows:
        yield from (one for one in (row.energy, row.quality_run and row.quality_run.energy) if one)


def _co2(table: Table) -> Iterator[str]:
    if not any(_joules(table.rows)):
        return
    if table.intensity is None:
        yield "No CO2e: no grid intensity was given."
        return
    hint = ", which stands in until --zone is given" if table.intensity.is_world_average else ""
    yield f"CO2e is energy times {table.intensity}{hint}."
    if table.run.site is not None:
        yield f"Stated of the site: {table.run.site}. The details have its grams; the column has not."


def _compared(rows: Iterable[Row]) -> Iterator[tuple[Row, Comparison]]:
    for row in rows:
        if row.latency is not None and row.latency.comparison is not None:
            yield row, row.latency.comparison


def _energies(rows: Iterable[Row]) -> Iterator[tuple[Row, Comparison]]:
    """The rows whose measured energy has a ratio."""
    for row in rows:
        compared = row.energy.comparison if row.energy else None
        if compared is not None and compared.ratio is not None and row.status == "ok":
            yield row, compared
