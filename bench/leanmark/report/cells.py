"""The text of one cell, the same in every report.

``~`` marks an estimate, ``†`` an interval over too few processes, ``‡`` a ratio without an interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from leanmark import units
from leanmark.reading.table import Judged, Metric, Row
from leanmark.record import Comparison, Interval

WITHIN = "†"
BARE = "‡"
NOTHING = "–"

Unit = Callable[[float | None], str]
Cell = Callable[[Row], str]


def name(row: Row) -> str:
    return f"{row.case.label} · {row.case.backend}"


def latency(row: Row) -> str:
    return _value(row.latency, units.seconds)


def throughput(row: Row) -> str:
    return NOTHING if row.samples_per_s is None else units.rate(row.samples_per_s)


def ratio(row: Row) -> str:
    """``0.62× [0.60, 0.64]``; an interval over too few processes is marked."""
    if row.latency is None or row.latency.comparison is None:
        return NOTHING
    return comparison(row.latency.comparison)


def comparison(compared: Comparison) -> str:
    interval = compared.ratio
    if interval is None:
        return NOTHING
    mark = WITHIN if interval.scope == "within-process" else ""
    return units.ratio_interval(interval.value, interval.low, interval.high) + mark


def memory_ratio(row: Row) -> str:
    """Working memory over that of the reference; marked where one process gives no interval."""
    metric = row.working_memory
    if metric is None:
        return NOTHING
    if metric.comparison is not None and metric.comparison.ratio is not None:
        return comparison(metric.comparison)
    return NOTHING if metric.plain_ratio is None else units.ratio(metric.plain_ratio) + BARE


def energy(row: Row) -> str:
    """``12.3 mJ ±5%`` with all that is uncertain in it; an estimate has ``~`` instead."""
    text = _value(row.energy, units.joules)
    doubt_j = row.energetics.doubt_j if row.energetics else None
    if row.energy is None or doubt_j is None or row.energy.summary.value <= 0:
        return text
    return f"{text} ±{100 * doubt_j / row.energy.summary.value:.2g}%"


def co2(row: Row) -> str:
    if row.co2_g is None or row.energy is None:
        return NOTHING
    return row.energy.summary.provenance.mark + units.grams(row.co2_g)


def quality(row: Row) -> str:
    """``97.2 %``, or ``R² 0.912``."""
    return NOTHING if row.judged is None else quality_value(row.judged)


def quality_value(judged: Judged) -> str:
    value = judged.quality.value
    if judged.interval:
        return units.percent(value)
    return f"{value:.1e}" if judged.quality.metric == "max_error" else f"{value:.3f}"


def quality_change(row: Row) -> str:
    """``−0.3 [−1.2, +0.6]`` in percentage points; empty for the baseline itself."""
    if row.judged is None or row.judged.change is None or row.role == "baseline":
        return ""
    change = row.judged.change
    return f"{units.points(change.value)} [{units.points(change.low)}, {units.points(change.high)}]"


def quality_and_change(row: Row) -> str:
    """``96.2 % (−0.7) [−1.9, +0.6]``; the change and its interval are in percentage points."""
    value, bracket, interval = quality_change(row).partition(" [")
    return f"{quality(row)} ({value}){bracket}{interval}" if value else quality(row)


def speed_verdict(row: Row) -> str:
    return row.verdict.partition(" · ")[0]


def quality_verdict(row: Row) -> str:
    if row.judged is None or row.role == "baseline":
        return ""
    return row.judged.verdict or "not judged"


def with_interval(metric: Metric, unit: Unit) -> str:
    summary = metric.summary
    text = summary.provenance.mark + unit(summary.value)
    if summary.interval is not None:
        text += f" {between(summary.interval, unit)}"
        text += WITHIN if summary.interval.scope == "within-process" else ""
    return text


def between(interval: Interval, unit: Unit) -> str:
    return f"[{unit(interval.low)}, {unit(interval.high)}]"


def _value(metric: Metric | None, unit: Unit) -> str:
    if metric is None:
        return NOTHING
    return metric.summary.provenance.mark + unit(metric.summary.value)


def gathered(pairs: Iterable[tuple[str, str]], compared: Sequence[str] = ()) -> Iterator[str]:
    """Pairs of a text and whom it is about, as one line for each text.

    What is true of all of more than three ``compared`` is said of all.
    """
    groups: dict[str, list[str]] = {}
    for text, whom in pairs:
        groups.setdefault(text, []).append(whom)
    for text, names in groups.items():
        everyone = len(names) > 3 and names == list(compared)
        yield f"{'all that is compared' if everyone else ', '.join(names)}: {text}"
