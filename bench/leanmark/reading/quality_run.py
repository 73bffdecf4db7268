"""What training to a quality target took: time, energy and epochs, over runs with other seeds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from leanmark.record import Case, Measurement, Series, Summary
from leanmark.statistics import instrument, stats


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One quantity over the runs; ``doubt`` is the meter's half-width, with its gain, ``None`` if unknown."""

    summary: Summary
    least: float
    most: float
    doubt: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRun:
    """``epochs`` are those of each run, of at most ``longest``; ``looking`` the share of the time that went
    into finding the quality. Without a ``time`` there is the ``refusal``; without an ``energy``, too or not.
    """

    metric: str | None = None
    target: float | None = None
    epochs: tuple[int, ...] = ()
    longest: int | None = None
    looking: float | None = None
    time: Spread | None = None
    energy: Spread | None = None
    refusal: str | None = None


def find(measurements: Iterable[Measurement], case: Case) -> QualityRun | None:
    """Of the workload of ``case``, which is a baseline; ``None`` where none was asked for."""
    same = case.workload, case.commit
    for one in measurements:
        if one.pass_name == "quality_run" and (one.case.workload, one.case.commit) == same:
            return _read(one) if case.is_baseline else None
    return None


def _read(one: Measurement) -> QualityRun:
    runs: list[dict[str, Any]] = list(one.executed.get("runs", ()))
    took, joules = one.find("run_to_quality_s"), one.find("run_to_quality_j")
    return QualityRun(
        metric=one.executed.get("metric"),
        target=one.executed.get("target"),
        epochs=tuple(run["epochs"] for run in runs),
        longest=one.executed.get("longest"),
        looking=sum(run["looking_s"] for run in runs) / sum(run["time_s"] for run in runs) if runs else None,
        time=_spread(took) if took else None,
        energy=_spread(joules) if joules else None,
        refusal=one.reason or _without_energy(one),
    )


def _spread(series: Series) -> Spread:
    summary = stats.summarize(series)
    stated = math.hypot(instrument.doubt(series), series.gain or 0.0) * summary.value
    return Spread(
        summary=summary, least=min(series.values), most=max(series.values), doubt=stated if stated else None
    )


def _without_energy(one: Measurement) -> str | None:
    return next((each.message for each in one.findings if each.code == "no-energy-of-run"), None)
