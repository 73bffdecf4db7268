"""What a continuous integration may fail on. Pure.

A rule names a metric and, if it is not the usual one, the difference that counts:
``worse:latency,accuracy`` or ``worse:latency=2.5%,accuracy=0.5%``. For latency and memory that is a share
of the baseline's value, for accuracy it is percentage points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from leanmark.errors import UnknownName, UsageError
from leanmark.reading.compare import MARGIN, QUALITY_MARGIN, judge, judge_quality
from leanmark.reading.tabulate import Metric, Row, Table
from leanmark.record import Case, Comparison, Provenance, Verdict

GATE_FAILED = 3
"""Exit code: something is worse, and a second pass confirmed it."""

UNDECIDED = 4
"""Exit code under ``--require-conclusive``: nothing is worse, but not everything could be judged."""

Gated = Literal["latency", "memory", "energy", "accuracy"]

_DEFAULTS: dict[Gated, float] = {
    "latency": MARGIN,
    "memory": MARGIN,
    "energy": MARGIN,
    "accuracy": QUALITY_MARGIN,
}


_SERIES: dict[Gated, str] = {
    "latency": "latency_s",
    "memory": "working_memory_bytes",
    "energy": "energy_j",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    metric: Gated
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The verdict of one rule on one row; ``reason`` where it could not be judged."""

    case: Case
    rule: Rule
    verdict: Verdict
    reason: str | None = None


def parse(text: str) -> tuple[Rule, ...]:
    """The rules of a ``--fail-on``.

    Raises:
        UsageError: the text is no rule; UnknownName: no such metric.
    """
    word, colon, metrics = text.partition(":")
    if word.strip() != "worse" or not colon or not metrics.strip():
        raise UsageError(
            f"'{text}': write worse:METRIC[=MARGIN%],..., for example worse:latency=2.5%,accuracy"
        )
    return tuple(_rule(part.strip()) for part in metrics.split(","))


def _rule(text: str) -> Rule:
    name, equals, margin = text.partition("=")
    for metric, default in _DEFAULTS.items():
        if metric == name:
            return Rule(metric=metric, margin=_share(margin, text) if equals else default)
    raise UnknownName("metric", name, _DEFAULTS)


def _share(text: str, whole: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError as error:
        raise UsageError(f"'{whole}': a margin is a percentage such as 2.5%") from error
    if not text.endswith("%") or not 0 < share < 1:
        raise UsageError(f"'{whole}': a margin is a percentage such as 2.5%, above 0 and below 100")
    return share


def rulings(tables: Iterable[Table], rules: Iterable[Rule]) -> Iterator[Ruling]:
    """Every rule applied to every technique that was measured, and to those that are invalid or failed."""
    wanted = tuple(rules)
    for table in tables:
        for row in table.rows:
            if row.role in ("technique", "backend switch") and row.status != "skipped":
                yield from (_apply(rule, row) for rule in wanted)


def rulings_across(found: Iterable[Comparison], rules: Iterable[Rule]) -> Iterator[Ruling]:
    """Every rule applied to what two stored runs have in common, with the wider interval of unpaired runs."""
    wanted = {_SERIES[rule.metric]: rule for rule in rules if rule.metric in _SERIES}
    for one in found:
        rule = wanted.get(one.metric)
        if rule is not None:
            yield _judged(one.candidate, rule, one)


def _apply(rule: Rule, row: Row) -> Ruling:
    if row.status != "ok":
        return Ruling(case=row.case, rule=rule, verdict="invalid", reason=f"{row.status}: {row.reason}")
    if rule.metric == "accuracy":
        change = row.judged.change if row.judged else None
        if change is None:
            return _undecided(rule, row.case, "there is no interval of the change")
        return Ruling(case=row.case, rule=rule, verdict=judge_quality(change, rule.margin))
    metrics = {"latency": row.latency, "memory": row.working_memory, "energy": row.energy}
    return _ratio(rule, row, metrics[rule.metric])


def _ratio(rule: Rule, row: Row, metric: Metric | None) -> Ruling:
    if metric is None or metric.comparison is None:
        return _undecided(rule, row.case, "not measured")
    return _judged(row.case, rule, metric.comparison)


def _judged(case: Case, rule: Rule, compared: Comparison) -> Ruling:
    if compared.provenance is Provenance.ESTIMATED_MODEL:
        return _undecided(rule, case, "an estimate enters no gate")
    if compared.ratio is None or compared.demoted:
        return _undecided(rule, case, compared.reason or "no interval")
    verdict = judge(compared.ratio, rule.margin, compared.allowance, "lower")
    return Ruling(case=case, rule=rule, verdict=verdict)


def _undecided(rule: Rule, case: Case, reason: str) -> Ruling:
    return Ruling(case=case, rule=rule, verdict="inconclusive", reason=reason)
