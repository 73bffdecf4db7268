"""What the energy pass leaves on disk: every window with its uncertainty, idle power beside them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from leanmark.errors import MeterError
from leanmark.measuring.outcome import failure
from leanmark.meters.base import Evidence, Meter, Reading
from leanmark.meters.window import per_step
from leanmark.record import NO_COUNTER, Block, Case, Finding, Measurement, Provenance, Series

Idle = Literal["bare", "context"]
"""No process of the contest runs; or all have their model loaded and wait."""


@dataclass(frozen=True, slots=True)
class Window:
    """``steps`` steps that took ``wall_s`` around ``reading``; ``block`` says which round and when."""

    block: Block
    steps: int
    wall_s: float
    reading: Reading


@dataclass(slots=True)
class Outcome:
    """What became of one variant: windows, or an estimate, or the meter's refusal."""

    windows: list[Window] = field(default_factory=list)
    paced: list[Window] = field(default_factory=list)
    estimated: tuple[Block, ...] = ()
    power_w: float | None = None
    refusal: MeterError | None = None
    rate_hz: float | None = None
    rate_refusal: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all energy measurements of a replica have in common."""

    run: str
    contest: str
    meter: Meter[Any]
    idle: Mapping[Idle, tuple[Block, ...]]
    findings: tuple[Finding, ...]


def measurement(shared: Shared, case: Case, work: str, outcome: Outcome) -> Measurement:
    """What is stored of ``case``; the meter's refusal costs this measurement and no other."""
    if outcome.refusal is not None:
        return failure(shared.run, case, "energy", work, outcome.refusal)
    readings = [one.reading for one in (*outcome.windows, *outcome.paced)]
    return Measurement(
        run=shared.run,
        case=case,
        pass_name="energy",
        status="ok",
        work=work,
        contest=shared.contest,
        series=tuple(_series(shared, outcome)),
        findings=_findings(shared, outcome, readings),
        executed=_executed(outcome, readings),
    )


def _series(shared: Shared, outcome: Outcome) -> Iterable[Series]:
    gains = [one.reading.evidence.gain for one in outcome.windows if one.reading.evidence]
    gain = next((one for one in gains if one is not None), None)
    yield _of(shared.meter, "energy_j", outcome.estimated or _blocks(outcome.windows), gain)
    if outcome.windows:
        took = tuple(
            replace(one.block, loops=one.steps, value=one.wall_s / one.steps) for one in outcome.windows
        )
        yield Series(metric="window_step_s", meter="wall", blocks=took)
    if outcome.paced and outcome.rate_refusal is None:
        yield _of(shared.meter, "energy_at_rate_j", _blocks(outcome.paced), gain)
    for kind, blocks in shared.idle.items():
        yield _of(shared.meter, f"idle_{kind}_w", blocks, gain)


def _of(meter: Meter[Any], metric: str, blocks: Sequence[Block], gain: float | None) -> Series:
    return Series(
        metric=metric,
        meter=type(meter).__name__.lower(),
        scope=meter.scope,
        provenance=meter.provenance,
        gain=gain,
        blocks=tuple(blocks),
    )


def _blocks(windows: Iterable[Window]) -> tuple[Block, ...]:
    found = []
    for one in windows:
        joules, doubt = per_step(one.reading, one.steps, one.wall_s)
        found.append(replace(one.block, loops=one.steps, value=joules, uncertainty=doubt))
    return tuple(found)


def _findings(shared: Shared, outcome: Outcome, readings: Iterable[Reading]) -> tuple[Finding, ...]:
    found = [finding for one in readings for finding in one.findings]
    found += shared.findings
    if shared.meter.provenance is Provenance.ESTIMATED_MODEL and shared.meter.passed_over:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in shared.meter.passed_over.items())
        found.append(Finding(code=NO_COUNTER, message=reasons))
    if outcome.rate_refusal is not None:
        message = f"no energy at the request rate: {outcome.rate_refusal}"
        found.append(Finding(code="no-energy-at-rate", message=message))
    return tuple(dict.fromkeys(found))


def _executed(outcome: Outcome, readings: Sequence[Reading]) -> dict[str, Any]:
    if outcome.power_w is not None:
        source = f"a model: {outcome.power_w:.3g} W for the whole machine, times latency"
        return {"evidence": asdict(Evidence(source=source))}
    evidence = readings[-1].evidence if readings else None
    found: dict[str, Any] = {"evidence": asdict(evidence)} if evidence else {}
    return {**found, "request_rate_hz": outcome.rate_hz} if outcome.rate_hz else found
