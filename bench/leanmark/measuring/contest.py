"""A contest: all variants of one piece of work, alive together, one running at a time.

In every round each variant runs one block, in seeded random order, on the same cores; what disturbs a
round disturbs them all, and the ratios within it stay.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from leanmark.errors import LeanmarkError, MeterError
from leanmark.machine import disturbance
from leanmark.machine.disturbance import round_flags, unobserved
from leanmark.machine.probes import RoundProbe
from leanmark.measuring.launcher import Launcher, Worker
from leanmark.measuring.outcome import failure
from leanmark.measuring.schedule import Replica, order
from leanmark.meters.base import Meter, Reading
from leanmark.protocol import messages
from leanmark.record import NOT_STEADY, Block, Case, Finding, Measurement, SamplingPlan, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What every measurement of a contest shares."""

    run: str
    contest: str
    plan: SamplingPlan
    workload: messages.WorkloadSpec
    folder: str
    works: Mapping[Case, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One replica of a contest: its measurements, and what its processes and one round cost in seconds."""

    measurements: tuple[Measurement, ...]
    open_s: float
    round_s: float


@dataclass(slots=True)
class _Variant:
    """What is known about one case so far. Filled in while it plays, then frozen into records."""

    case: Case
    latency: list[Block] = field(default_factory=list)
    cpu_time: list[Block] = field(default_factory=list)
    energy: list[Block] = field(default_factory=list)
    samples_s: tuple[float, ...] = ()
    unobserved: set[str] = field(default_factory=set)
    opened: messages.Opened | None = None
    error: LeanmarkError | None = None
    energy_error: MeterError | None = None
    energy_reading: Reading | None = None


@dataclass(frozen=True, slots=True)
class _Seat:
    variant: _Variant
    worker: Worker
    loops: int


def play(
    stage: Stage,
    cases: Sequence[Case],
    replica: Replica,
    launcher: Launcher,
    energy_meter: Meter[Any] | None = None,
) -> Played:
    """Let ``cases`` run against each other in one process each.

    Each leaves a latency measurement, and an energy measurement where there is a meter. A variant that
    fails drops out with its reason, and the others go on.
    """
    variants = [_Variant(case) for case in cases]
    started = time.monotonic()
    with _seated(stage, variants, replica, launcher) as seats:
        opened = time.monotonic()
        _play_rounds(stage.plan, seats, replica)
        played = time.monotonic()
        if replica.index == 0 and stage.plan.samples:
            _sample(stage.plan, seats)
        if energy_meter is not None:
            _meter_energy(stage.plan, seats, energy_meter)
        _check_again(stage.plan, seats)
    records = [_latency(stage, variant, replica) for variant in variants]
    if energy_meter is not None:
        sound = [variant for variant in variants if variant.error is None]
        records += [_energy(stage, variant, energy_meter) for variant in sound]
    return Played(
        measurements=tuple(records),
        open_s=opened - started,
        round_s=(played - opened) / replica.rounds,
    )


@contextlib.contextmanager
def _seated(
    stage: Stage, variants: Sequence[_Variant], replica: Replica, launcher: Launcher
) -> Iterator[list[_Seat]]:
    """Start one process for each variant, in random order; end them after."""
    seats: list[_Seat] = []
    server = launcher.server(replica.layout)
    workers: list[Worker] = []
    try:
        for index in order(stage.plan.seed, replica.index, -1, len(variants)):
            variant = variants[index]
            with _blamed_on(variant):
                worker = server.fork()
                workers.append(worker)
                variant.opened = worker.ask(_request(stage, variant.case, replica), stage.plan.timeout_s)
                seats.append(_Seat(variant, worker, variant.opened.loops))
        yield sorted(seats, key=lambda seat: variants.index(seat.variant))
    finally:
        for worker in workers:
            worker.close()


def _request(stage: Stage, case: Case, replica: Replica) -> messages.Open:
    return messages.Open(
        case=case,
        workload=stage.workload,
        folder=stage.folder,
        place=messages.Place(cores=replica.cores, threads=case.threads),
        warmup_s=stage.plan.warmup_s,
        block_s=stage.plan.block_s,
        judge_quality=replica.index == 0,
    )


def _play_rounds(plan: SamplingPlan, seats: Sequence[_Seat], replica: Replica) -> None:
    """Every variant once a round; what disturbed the machine in a round is flagged on all its blocks."""
    with RoundProbe(replica.cores) as probe:
        before = probe.read()
        for round_ in range(replica.rounds):
            played = list(_play_round(plan, seats, replica, round_))
            after = probe.read()
            flags = round_flags(before, after)
            for place, seat, block in played:
                block = replace(block, flags=(*block.flags, *flags))
                _record(seat, block, _Turn(replica.index, round_, place, after.temperature_c))
            before = after
        for seat in seats:
            seat.variant.unobserved |= {*unobserved(before)}


def _play_round(
    plan: SamplingPlan, seats: Sequence[_Seat], replica: Replica, round_: int
) -> Iterator[tuple[int, _Seat, messages.BlockTime]]:
    for place, index in enumerate(order(plan.seed, replica.index, round_, len(seats))):
        seat = seats[index]
        if seat.variant.error is None:
            with _blamed_on(seat.variant):
                block = seat.worker.ask(messages.RunBlock(seat.loops), plan.timeout_s)
                yield place, seat, block


@dataclass(frozen=True, slots=True)
class _Turn:
    process: int
    round: int
    order: int
    temperature_c: float | None


def _record(seat: _Seat, time_: messages.BlockTime, turn: _Turn) -> None:
    for blocks, seconds in (
        (seat.variant.latency, time_.wall_s),
        (seat.variant.cpu_time, time_.cpu_s),
    ):
        blocks.append(
            Block(
                process=turn.process,
                round=turn.round,
                order=turn.order,
                loops=seat.loops,
                start_s=time_.start_s,
                value=seconds / seat.loops,
                flags=time_.flags,
                clock_hz=time_.clock_hz,
                temperature_c=turn.temperature_c,
            )
        )


def _sample(plan: SamplingPlan, seats: Sequence[_Seat]) -> None:
    """Single steps, after the rounds: their clock readings would be in the blocks otherwise."""
    for seat in seats:
        if seat.variant.error is None:
            with _blamed_on(seat.variant):
                samples = seat.worker.ask(messages.RunSamples(plan.samples), plan.timeout_s)
                seat.variant.samples_s = tuple(round(value, 9) for value in samples)


def _meter_energy(plan: SamplingPlan, seats: Sequence[_Seat], meter: Meter[Any]) -> None:
    """One window per variant, in a pass of its own: the meter's threads would disturb the rounds."""
    seconds = max(plan.energy_window_s, meter.min_window_s)
    for place, seat in enumerate(seats):
        if seat.variant.error is not None:
            continue
        with _blamed_on(seat.variant):
            try:
                window, reading = _energy_window(plan, seat, meter, seconds)
            except MeterError as error:  # the meter's failure is not the variant's
                seat.variant.energy_error = error
                continue
            seat.variant.energy.append(
                Block(
                    process=0,
                    round=0,
                    order=place,
                    loops=window.steps,
                    start_s=0.0,
                    # a meter that aligns to its counter's updates covers less than the window
                    value=reading.value / window.steps * window.wall_s / reading.duration_s,
                )
            )
            seat.variant.energy_reading = reading


def _energy_window(
    plan: SamplingPlan, seat: _Seat, meter: Meter[Any], seconds: float
) -> tuple[messages.Window, Reading]:
    """Steps between a start and a stop; the meter is stopped whatever becomes of the steps."""
    token = meter.start()
    try:
        window: messages.Window = seat.worker.ask(messages.RunWindow(seconds), plan.timeout_s + seconds)
    except LeanmarkError:
        with contextlib.suppress(MeterError):  # the worker's failure is the one to tell
            meter.stop(token)
        raise
    return window, meter.stop(token)


def _check_again(plan: SamplingPlan, seats: Sequence[_Seat]) -> None:
    for seat in seats:
        if seat.variant.error is None:
            with _blamed_on(seat.variant):
                seat.worker.ask(messages.CheckAgain(), plan.timeout_s)


@contextlib.contextmanager
def _blamed_on(variant: _Variant) -> Iterator[None]:
    """What goes wrong inside is this variant's result; the contest goes on without it."""
    try:
        yield
    except LeanmarkError as error:
        variant.error = error


def _latency(stage: Stage, variant: _Variant, replica: Replica) -> Measurement:
    opened = variant.opened
    if variant.error is not None:
        return failure(stage.run, variant.case, "latency", stage.works[variant.case], variant.error)
    assert opened is not None
    cold = Block(process=replica.index, round=0, order=0, loops=1, start_s=0.0, value=opened.cold_start_s)
    return Measurement(
        run=stage.run,
        case=variant.case,
        pass_name="latency",
        status="ok",
        work=stage.works[variant.case],
        contest=stage.contest,
        series=(
            Series(metric="latency_s", meter="wall", blocks=tuple(variant.latency)),
            Series(metric="cpu_time_s", meter="cpu_time", blocks=tuple(variant.cpu_time)),
            Series(metric="cold_start_s", meter="wall", blocks=(cold,)),
        ),
        samples_s=variant.samples_s,
        findings=(
            *(() if opened.steady else (_UNSTEADY,)),
            *disturbance.findings(sorted({*opened.unobserved, *variant.unobserved})),
        ),
        quality=opened.quality,
        executed={**opened.executed, "processes": [_place(replica)]},
    )


_UNSTEADY = Finding(code=NOT_STEADY, message="it was still warming up when the time for that ended")


def _place(replica: Replica) -> dict[str, Any]:
    return {
        "process": replica.index,
        "parent": replica.parent,
        "cores": list(replica.cores),
        "hash_seed": replica.layout.hash_seed,
        "padding_bytes": replica.layout.padding_bytes,
        "wait": replica.layout.wait,
    }


def _energy(stage: Stage, variant: _Variant, meter: Meter[Any]) -> Measurement:
    reading = variant.energy_reading
    if variant.energy_error is not None:
        work = stage.works[variant.case]
        return failure(stage.run, variant.case, "energy", work, variant.energy_error)
    return Measurement(
        run=stage.run,
        case=variant.case,
        pass_name="energy",
        status="ok",
        work=stage.works[variant.case],
        contest=stage.contest,
        series=(
            Series(
                metric="energy_j",
                meter=type(meter).__name__.lower(),
                scope=meter.scope,
                provenance=meter.provenance,
                blocks=tuple(variant.energy),
            ),
        ),
        findings=reading.findings if reading else (),
        executed={"evidence": asdict(reading.evidence)} if reading and reading.evidence else {},
    )
