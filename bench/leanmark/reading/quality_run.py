"""What training to a quality target took: time, energy and epochs, over runs with other seeds. Pure.

A technique's runs are compared to the unchanged model's seed by seed, in a run against another commit to the
same technique's there: both began with weights and an order of samples drawn from one seed, and took turns.
Seeds are what is replicated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from leanmark.intensity import Intensity
from leanmark.reading import carbon, sci
from leanmark.reading.compare import Side, compare_series
from leanmark.record import NO_COUNTER, Case, Comparison, Measurement, Run, Status, Summary, left_out
from leanmark.reference import reference_among
from leanmark.statistics import instrument, stats

_NO_ENERGY = "no-energy-of-run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One quantity over the runs; ``doubt`` is the meter's half-width, with its gain, ``None`` if unknown.

    ``comparison`` is to the unchanged model or the same at another commit, ``plain_ratio`` the value over its
    value where too few runs give no interval.
    """

    summary: Summary
    least: float
    most: float
    doubt: float | None = None
    comparison: Comparison | None = None
    plain_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRun:
    """``epochs`` are those of each run, of at most ``longest``; ``reached`` is how many runs got there.
    ``looking`` and ``earlier`` are the shares of the time that went into finding the quality, and into what
    the last training began with. Without a ``time`` there is the ``refusal``; without an ``energy``, too or
    not. ``left_out`` are parts of the machine that the energy of some run is without: two are compared only
    where these are the same. ``co2_g`` are the grams of the ``energy``; ``footprint`` has those of the site,
    and of making the ``device`` that it trained on, where that is the row's.
    """

    status: Status
    device: str = "cpu"
    metric: str | None = None
    target: float | None = None
    epochs: tuple[int, ...] = ()
    reached: int = 0
    longest: int | None = None
    looking: float | None = None
    earlier: float = 0.0
    time: Spread | None = None
    energy: Spread | None = None
    co2_g: float | None = None
    footprint: sci.Footprint | None = None
    left_out: tuple[str, ...] = ()
    refusal: str | None = None
    doubts: tuple[str, ...] = ()


def find(
    run: Run, measurements: Iterable[Measurement], case: Case, intensity: Intensity | None = None
) -> QualityRun | None:
    """Of the workload and technique of ``case``; ``None`` where there is none."""
    if case.sentinel:
        return None
    made = {
        (one.case.technique, one.case.commit): one
        for one in measurements
        if one.pass_name == "quality_run" and one.case.workload == case.workload
    }
    one = made.get((case.technique, case.commit))
    if one is None:
        return None
    reference = reference_among(one.case, (other.case for other in made.values()))
    before = made.get((reference.technique, reference.commit)) if reference else None
    found = _read(run, one, before)
    if found.energy is None or intensity is None:
        return found
    site = run.site
    if site is not None and case.device != one.case.device:
        site = replace(site, embodied=None)
    return replace(
        found,
        co2_g=carbon.grams(found.energy.summary.value, intensity),
        footprint=sci.footprint(site, intensity, found.energy, found.time),
    )


def _read(run: Run, one: Measurement, before: Measurement | None) -> QualityRun:
    runs: list[dict[str, Any]] = list(one.executed.get("runs", ()))
    target = one.executed.get("target")
    return QualityRun(
        status=one.status,
        device=one.case.device,
        metric=one.executed.get("metric"),
        target=target,
        epochs=tuple(each["epochs"] for each in runs),
        reached=sum(max(each["qualities"]) >= target for each in runs),
        longest=one.executed.get("longest"),
        looking=_share(runs, "looking_s") if runs else None,
        earlier=_share(runs, "earlier_s") if runs else 0.0,
        time=_spread(run, one, before, "run_to_quality_s"),
        energy=_spread(run, one, before, "run_to_quality_j"),
        left_out=left_out(one.findings),
        refusal=one.reason or _without_energy(one),
        doubts=tuple(each.message for each in one.findings if each.code not in (_NO_ENERGY, NO_COUNTER)),
    )


def _share(runs: list[dict[str, Any]], part: str) -> float:
    """Records made before techniques were trained have no earlier training."""
    return float(sum(each.get(part, 0.0) for each in runs) / sum(each["time_s"] for each in runs))


def _spread(run: Run, one: Measurement, before: Measurement | None, metric: str) -> Spread | None:
    series, other = one.find(metric), before.find(metric) if before else None
    if series is None:
        return None
    summary = stats.summarize(series)
    stated = math.hypot(instrument.doubt(series), series.gain or 0.0) * summary.value
    spread = Spread(
        summary=summary, least=min(series.values), most=max(series.values), doubt=stated if stated else None
    )
    if before is None or before.work != one.work:
        return spread
    compared = compare_series(Side(run=run, measurement=before), Side(run=run, measurement=one), metric)
    if other is None or compared.ratio is not None or not compared.pairs:
        return replace(spread, comparison=compared)
    return replace(spread, comparison=compared, plain_ratio=summary.value / stats.summarize(other).value)


def _without_energy(one: Measurement) -> str | None:
    return next((each.message for each in one.findings if each.code == _NO_ENERGY), None)
