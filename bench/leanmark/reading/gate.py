"""What a continuous integration may fail on. Pure.

A rule names a metric and, if it is not the usual one, the difference that counts:
``worse:latency,accuracy`` or ``worse:latency=2.5%,accuracy=0.5%``. For latency and memory that is a share
of the baseline's value, for accuracy it is percentage points. Counters such as ``worse:operator_calls`` need
neither margin nor repetition: any difference counts, but for instructions (0.3 %).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from leanmark import thresholds, units
from leanmark.errors import OutOfTime, UnknownName, UsageError
from leanmark.machine.counters import METRICS
from leanmark.reading import across, counts
from leanmark.reading.compare import judge, judge_quality, pairing
from leanmark.reading.counts import Counted
from leanmark.reading.table import Metric, Row, Table
from leanmark.record import Case, Comparison, Provenance, Verdict
from leanmark.store import Records
from leanmark.thresholds import DEFAULTS, Thresholds

GATE_FAILED = 3
"""Exit code: something is worse, and a second pass confirmed it."""

UNDECIDED = 4
"""Exit code under ``--require-conclusive``: nothing is worse, but not everything could be judged."""

_SERIES: dict[str, str] = {
    "latency": "latency_s",
    "memory": "working_memory_bytes",
    "energy": "energy_j",
}

_TO_TARGET: dict[str, str] = {"latency": "run_to_quality_s", "energy": "run_to_quality_j"}
"""What a rule says of training to a quality target too, between two stored runs."""

_TRAINING = "training to its target"

_JUDGED = ("technique", "backend switch", "commit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    metric: str
    margin: float

    @property
    def exact(self) -> bool:
        """Whether its metric is counted: nothing is left to confirm."""
        return self.metric in METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The verdict of one rule on one row; ``reason`` is what it rests on, or why there is none."""

    case: Case
    rule: Rule
    verdict: Verdict
    reason: str | None = None


def parse(text: str, usual: Thresholds | None = None) -> tuple[Rule, ...]:
    """The rules of a ``--fail-on``; one without a margin has that of ``usual``, a run's own thresholds.

    Raises:
        UsageError: the text is no rule; UnknownName: no such metric.
    """
    word, colon, metrics = text.partition(":")
    if word.strip() != "worse" or not colon or not metrics.strip():
        raise UsageError(
            f"'{text}': write worse:METRIC[=MARGIN%],..., for example worse:latency=2.5%,accuracy"
        )
    return tuple(_rule(part.strip(), usual or Thresholds()) for part in metrics.split(","))


def _rule(text: str, usual: Thresholds) -> Rule:
    name, equals, margin = text.partition("=")
    for metric in DEFAULTS:
        if metric == name:
            return Rule(
                metric=metric, margin=thresholds.share(margin, text) if equals else usual.margin(metric)
            )
    if name in METRICS:
        allowed = 0.0 if margin == "0%" else thresholds.share(margin, text) if equals else None
        return Rule(metric=name, margin=counts.tolerance(name) if allowed is None else allowed)
    raise UnknownName("metric", name, (*DEFAULTS, *METRICS))


def rulings(tables: Iterable[Table], rules: Iterable[Rule]) -> Iterator[Ruling]:
    """Every rule applied to all that is compared to something, and to what of that is invalid or failed."""
    wanted = tuple(rules)
    for table in tables:
        for row in table.rows:
            lost = row.status in ("failed", "invalid")  # a baseline too: then nothing was compared to it
            unseen = row.status == "skipped" and str(OutOfTime()) in (row.reason or "")
            if lost or unseen or (row.role in _JUDGED and row.status != "skipped"):
                yield from (_apply(rule, row) for rule in wanted)


def exit_code(objections: Iterable[Ruling]) -> int:
    """What a command ends with that objects to these."""
    verdicts = {one.verdict for one in objections}
    if "worse" in verdicts:
        return GATE_FAILED
    if "invalid" in verdicts:
        return 1
    return UNDECIDED if verdicts else 0


def rulings_across(found: Iterable[Comparison], rules: Iterable[Rule]) -> Iterator[Ruling]:
    """Every rule applied to what two stored runs have in common, with the wider interval of unpaired runs."""
    named = {rule.metric: rule for rule in rules}
    wanted = {_SERIES[name]: rule for name, rule in named.items() if name in _SERIES}
    to_target = {_TO_TARGET[name]: rule for name, rule in named.items() if name in _TO_TARGET}
    by_case: dict[Case, dict[str, Comparison]] = {}
    for one in found:
        if one.metric in to_target:
            yield _trained(one, to_target[one.metric])
        elif one.metric not in _TO_TARGET.values():
            by_case.setdefault(one.candidate, {})[one.metric] = one
    for case, metrics in by_case.items():
        for metric, rule in wanted.items():
            if metric in metrics:
                yield _judged(case, rule, metrics[metric])
            else:
                yield _undecided(rule, case, "not measured in both runs")


def rulings_counted(found: Iterable[Counted], rules: Iterable[Rule]) -> Iterator[Ruling]:
    """Every rule about a counter applied to every case."""
    wanted = tuple(rule for rule in rules if rule.exact)
    for one in found:
        yield from (_counted(rule, one) for rule in wanted)


def since(older: Records, newer: Records, rules: Sequence[Rule]) -> Iterator[Ruling]:
    """Every rule applied to each case of ``newer`` against itself in ``older``.

    Raises:
        NotComparable: they share no case, not even one that failed in ``newer``, or differ in software, work
            or, for what is timed, machine.
        UsageError: a rule is about accuracy.
    """
    if any(rule.metric == "accuracy" for rule in rules):
        raise UsageError(
            "two stored runs cannot be judged by accuracy: which samples each got right is not stored. "
            "Leave --since out to judge it within the run, or measure both commits in one: "
            "leanmark run --against REF --fail-on worse:accuracy"
        )
    broken = tuple(across.broken(older, newer))
    for one in broken:
        reason = across.why(one)
        yield from (Ruling(case=one.case, rule=rule, verdict="invalid", reason=reason) for rule in rules)
    untimed = {one.case for one in broken if one.pass_name == "latency"}
    if any(not rule.exact for rule in rules):
        to_target = _TO_TARGET.values()
        found = across.compare_runs(older, newer)
        kept = (one for one in found if one.candidate not in untimed or one.metric in to_target)
        yield from rulings_across(kept, rules)
    if any(rule.exact for rule in rules):
        yield from rulings_counted(across.compare_counts(older, newer), rules)


def _counted(rule: Rule, found: Counted) -> Ruling:
    count = found.counts.get(rule.metric)
    if count is None:
        return _undecided(rule, found.case, found.missing.get(rule.metric, "not counted"))
    if count.before is None:
        return _undecided(rule, found.case, count.reason or "nothing to compare to was counted")
    verdict = counts.judge(count, rule.margin)
    return Ruling(case=found.case, rule=rule, verdict=verdict, reason=count.change)


def _apply(rule: Rule, row: Row) -> Ruling:
    if row.status == "skipped":
        return _undecided(rule, row.case, row.reason or "skipped")
    if row.status != "ok":
        return Ruling(case=row.case, rule=rule, verdict="invalid", reason=f"{row.status}: {row.reason}")
    if rule.metric == "accuracy":
        change = row.judged.change if row.judged else None
        if change is None:
            return _undecided(rule, row.case, "there is no interval of the change")
        low, high = units.points(change.low), units.points(change.high)
        return Ruling(
            case=row.case,
            rule=rule,
            verdict=judge_quality(change, rule.margin),
            reason=f"change {units.points(change.value)} [{low}, {high}] points",
        )
    if rule.exact:
        return _counted(rule, row.counted or Counted(case=row.case))
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
    ratio = compared.ratio
    return Ruling(
        case=case,
        rule=rule,
        verdict=judge(ratio, rule.margin, compared.allowance, "lower", compared.floor),
        reason=f"ratio {units.ratio_interval(ratio.value, ratio.low, ratio.high)}",
    )


def _trained(compared: Comparison, rule: Rule) -> Ruling:
    ruling = _judged(compared.candidate, rule, compared)
    told = (_TRAINING, pairing(compared), ruling.reason)
    return replace(ruling, reason=": ".join(part for part in told if part))


def _undecided(rule: Rule, case: Case, reason: str) -> Ruling:
    return Ruling(case=case, rule=rule, verdict="inconclusive", reason=reason)
