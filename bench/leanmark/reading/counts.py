"""What a step does against what it did, in exact numbers: no interval, no margin, no noise. Pure.

Operators, FLOPs, bytes and allocations are the same in every run of the same code, on any machine; a verdict
needs no more than a difference. Instructions differ by up to 0.3 % between runs of small models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from leanmark.machine.counters import METRICS
from leanmark.record import Case, Measurement, Pass, Series, Verdict
from leanmark.statistics import stats

INSTRUCTIONS_TOLERANCE = 0.003

PASSES: tuple[Pass, ...] = ("memory", "latency")
"""Where counters are: callgrind's, which take precedence, beside the memory of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One counter of one step: ``value``, and ``before`` where its reference has it too.

    ``reason`` says why the two may not be compared. ``meter`` is who counted.
    """

    value: float
    meter: str
    before: float | None = None
    reason: str | None = None

    @property
    def change(self) -> str:
        """``31 -> 45 (+45.16 %)``."""
        if self.before is None:
            return f"{self.value:,.0f}"
        share = f" ({self.value / self.before - 1:+.2%})" if self.before else ""
        return f"{self.before:,.0f} -> {self.value:,.0f}{share}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """All counters of one case, and why the others are ``missing``."""

    case: Case
    counts: Mapping[str, Count] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def without(self, metric: str, reason: str) -> Counted:
        kept = {name: count for name, count in self.counts.items() if name != metric}
        return replace(self, counts=kept, missing={**self.missing, metric: reason})


def tolerance(metric: str) -> float:
    """The relative difference that is none."""
    return INSTRUCTIONS_TOLERANCE if metric == "instructions" else 0.0


def judge(count: Count, allowed: float) -> Verdict:
    """Fewer is better; ``inconclusive`` where there is nothing to compare to."""
    if count.before is None or count.reason is not None:
        return "inconclusive"
    if count.value > count.before * (1 + allowed):
        return "worse"
    if count.value < count.before / (1 + allowed):
        return "better"
    return "same"


def counted(case: Case, ours: Sequence[Measurement | None], before: Sequence[Measurement | None]) -> Counted:
    """The counters of ``case`` in its passes beside those of its reference; the first that has one counts."""
    found = dict(_counts(ours, before))
    reasons = [one.executed.get("not_counted", {}) for one in ours if one is not None]
    missing = {name: reason for each in reversed(reasons) for name, reason in each.items()}
    return Counted(
        case=case,
        counts=found,
        missing={name: reason for name, reason in missing.items() if name not in found},
    )


def _find(passes: Sequence[Measurement | None], metric: str) -> Series | None:
    return next((series for one in passes if one is not None and (series := one.find(metric))), None)


def _counts(
    ours: Sequence[Measurement | None], before: Sequence[Measurement | None]
) -> Iterator[tuple[str, Count]]:
    for metric in METRICS:
        series = _find(ours, metric)
        if series is None:
            continue
        value, other = stats.summarize(series).value, _find(before, metric)
        if other is None:
            yield metric, Count(value=value, meter=series.meter)
        elif other.meter != series.meter:
            reason = f"counted by {series.meter} here and by {other.meter} there"
            yield metric, Count(value=value, meter=series.meter, reason=reason)
        else:
            was = stats.summarize(other).value
            yield metric, Count(value=value, meter=series.meter, before=was)
