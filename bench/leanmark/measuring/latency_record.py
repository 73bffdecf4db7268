"""What the rounds of a contest leave on disk: blocks of each variant, its first call, and doubts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from leanmark.errors import LeanmarkError
from leanmark.machine import disturbance
from leanmark.machine.counters import Counted
from leanmark.measuring import count_pass
from leanmark.measuring.cost import Metered
from leanmark.measuring.outcome import failure
from leanmark.protocol import messages
from leanmark.record import NOT_STEADY, Block, Case, Finding, Measurement, Series

UNSTEADY = Finding(code=NOT_STEADY, message="it was still warming up when the time for that ended")


@dataclass(slots=True)
class Variant:
    """What is known about one case so far. Filled in while it plays, then frozen into records."""

    case: Case
    latency: list[Block] = field(default_factory=list)
    cpu_time: list[Block] = field(default_factory=list)
    device_time: list[Block] = field(default_factory=list)
    cold_device_time: list[Block] = field(default_factory=list)
    samples_s: tuple[float, ...] = ()
    counted: Counted = field(default_factory=lambda: Counted(counts={}))
    unobserved: set[str] = field(default_factory=set)
    findings: tuple[Finding, ...] = ()
    opened: messages.Opened | None = None
    first_call: Metered | None = None
    no_first_call: str | None = None
    error: LeanmarkError | None = None


def measurement(run: str, contest: str, work: str, variant: Variant, place: Mapping[str, Any]) -> Measurement:
    """What is stored of ``variant``; ``place`` is where its process ran, and which it was."""
    opened = variant.opened
    if variant.error is not None:
        return failure(run, variant.case, "latency", work, variant.error)
    assert opened is not None
    return Measurement(
        run=run,
        case=variant.case,
        pass_name="latency",
        status="ok",
        work=work,
        contest=contest,
        series=(
            Series(metric="latency_s", meter="wall", blocks=tuple(variant.latency)),
            Series(metric="cpu_time_s", meter="cpu_time", blocks=tuple(variant.cpu_time)),
            *_first_call(variant, opened, place["process"]),
            *_on_device(variant),
            *count_pass.series(variant.counted, variant.case.backend),
        ),
        samples_s=variant.samples_s,
        findings=(
            *(() if opened.steady else (UNSTEADY,)),
            *disturbance.findings(sorted({*opened.unobserved, *variant.unobserved})),
            *variant.findings,
            *_about_first_call(variant, place["process"]),
        ),
        quality=opened.quality,
        executed={
            **opened.executed,
            "processes": [place],
            "not_counted": dict(variant.counted.missing),
        },
    )


def _first_call(variant: Variant, opened: messages.Opened, process: int) -> Iterator[Series]:
    """Loading the model and its first step, which may compile it: once in each process."""
    cold = Block(process=process, round=0, order=0, loops=1, start_s=0.0, value=opened.cold_start_s)
    yield Series(metric="cold_start_s", meter="wall", blocks=(cold,))
    found = variant.first_call
    if found is not None:
        yield Series(
            metric="cold_start_j",
            meter=found.meter,
            scope=found.scope,
            provenance=found.provenance,
            gain=found.gain,
            blocks=(replace(cold, value=found.joules, uncertainty=found.doubt_j),),
        )


def _about_first_call(variant: Variant, process: int) -> Iterator[Finding]:
    """What is missing in its energy, in words that are the same in every process."""
    if variant.no_first_call and process == 0:
        yield Finding(code="no-first-call", message=f"no energy of its first call: {variant.no_first_call}")
    if variant.first_call:
        yield from variant.first_call.doubts("a first call")


def _on_device(variant: Variant) -> Iterator[Series]:
    """The device's own time of a step, which launches and waiting are not in; cold: its cache emptied."""
    for metric, blocks in (
        ("device_time_s", variant.device_time),
        ("cold_device_time_s", variant.cold_device_time),
    ):
        if blocks:
            yield Series(metric=metric, meter="cuda_events", scope="device", blocks=tuple(blocks))
