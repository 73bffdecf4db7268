"""A contest: all variants of one piece of work, alive together, one running at a time.

In every round each variant runs one block, in seeded random order, on the same cores; what disturbs a
round disturbs them all, and the ratios within it stay.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leanmark.errors import LeanmarkError, TookNoEffect
from leanmark.machine.counters import METRICS, Counted
from leanmark.measuring import latency_record
from leanmark.measuring.cost import CostMeter
from leanmark.measuring.energy_pass import EnergyPass, Entrant
from leanmark.measuring.latency_record import UNSTEADY, Variant
from leanmark.measuring.launcher import Launcher, Worker
from leanmark.measuring.schedule import Replica, order
from leanmark.measuring.source import HERE, Source
from leanmark.measuring.watch import Watch
from leanmark.meters.base import Meter
from leanmark.protocol import messages
from leanmark.record import Block, Case, Measurement, Provenance, SamplingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One commit's code, and the folder of the models that it prepared."""

    source: Source
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What every measurement of a contest shares."""

    run: str
    contest: str
    plan: SamplingPlan
    workload: messages.WorkloadSpec
    folder: str
    works: Mapping[Case, str]
    rival: Side | None = None

    def side(self, case: Case) -> Side:
        """Where ``case`` takes its code and its models from."""
        if case.commit is None:
            return Side(source=HERE, folder=self.folder)
        assert self.rival is not None, "a case of another commit has that commit beside it"
        return self.rival


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One replica of a contest: its measurements, and what its processes and one round cost in seconds."""

    measurements: tuple[Measurement, ...]
    open_s: float
    round_s: float


@dataclass(frozen=True, slots=True)
class _Seat:
    variant: Variant
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
    variants = [Variant(case) for case in cases]
    energy = EnergyPass(stage.plan, replica, energy_meter)
    energy.idle("bare")
    started = time.monotonic()
    with _seated(stage, variants, replica, launcher, _counter(energy_meter)) as seats:
        opened = time.monotonic()
        _play_rounds(stage.plan, seats, replica, launcher.gpu)
        played = time.monotonic()
        if replica.index == 0 and stage.plan.samples:
            _sample(stage.plan, seats)
        _meter_energy(energy, seats)
        _check_again(stage, seats)
        if replica.index == 0:
            _count(stage.plan, seats)
    energy.idle("bare")
    place = _place(replica, played - started)
    records = [
        latency_record.measurement(stage.run, stage.contest, stage.works[one.case], one, place)
        for one in variants
    ]
    sound = {one.case: stage.works[one.case] for one in variants if one.error is None}
    warming = {one.case for one in variants if one.opened and not one.opened.steady}
    for one in energy.records(stage.run, stage.contest, sound):
        findings = (*one.findings, UNSTEADY) if one.case in warming else one.findings
        records.append(replace(one, findings=findings))
    return Played(
        measurements=tuple(records),
        open_s=opened - started,
        round_s=(played - opened) / replica.rounds,
    )


def _counter(meter: Meter[Any] | None) -> Meter[Any] | None:
    """For the first calls of every replica: an estimate of so short a time would say nothing."""
    return None if meter is None or meter.provenance is Provenance.ESTIMATED_MODEL else meter


@contextlib.contextmanager
def _seated(
    stage: Stage,
    variants: Sequence[Variant],
    replica: Replica,
    launcher: Launcher,
    meter: Meter[Any] | None,
) -> Iterator[list[_Seat]]:
    """Start one process for each variant, in random order; end them after. ``meter`` is for first calls."""
    seats: list[_Seat] = []
    workers: list[Worker] = []
    try:
        for index in order(stage.plan.seed, replica.index, -1, len(variants)):
            variant = variants[index]
            with _blamed_on(variant):
                worker = launcher.server(replica.layout, stage.side(variant.case).source).fork()
                workers.append(worker)
                request = _request(stage, variant.case, replica)
                with CostMeter(meter) as metered:
                    variant.opened = worker.ask(request, stage.plan.timeout_s, metered.notice)
                variant.first_call = metered.energy(variant.opened.cold_start_s)
                variant.no_first_call = metered.reason if meter else None
                seats.append(_Seat(variant, worker, variant.opened.loops))
        yield sorted(seats, key=lambda seat: variants.index(seat.variant))
    finally:
        for worker in workers:
            worker.close()


def _request(stage: Stage, case: Case, replica: Replica) -> messages.Open:
    return messages.Open(
        case=case,
        workload=stage.workload,
        folder=stage.side(case).folder,
        rival_folder=stage.rival.folder if stage.rival and case.commit is None else None,
        place=messages.Place(cores=replica.cores, threads=case.threads),
        warmup_s=stage.plan.warmup_s,
        block_s=stage.plan.block_s,
        judge_quality=replica.index == 0,
    )


def _play_rounds(plan: SamplingPlan, seats: Sequence[_Seat], replica: Replica, gpu: str) -> None:
    """Every variant once a round; what disturbed the machine in a round is flagged on all its blocks."""
    with Watch(replica.cores, gpu) as watch:
        before = watch.look()
        for round_ in range(replica.rounds):
            played = list(_play_round(plan, seats, replica, round_))
            after = watch.look()
            flags = watch.flags(before, after)
            for place, seat, block in played:
                clock_hz = after.clock_hz or block.clock_hz
                block = replace(block, flags=(*block.flags, *flags), clock_hz=clock_hz)
                _record(seat, block, _Turn(replica.index, round_, place, after.temperature_c))
            before = after
        for seat in seats:
            seat.variant.unobserved |= {*before.unobserved}
            seat.variant.findings = watch.findings()


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
        (seat.variant.latency, time_.wall_s / seat.loops),
        (seat.variant.cpu_time, time_.cpu_s / seat.loops),
        (seat.variant.device_time, time_.device_s),
        (seat.variant.cold_device_time, time_.cold_device_s),
    ):
        if seconds is None:
            continue
        blocks.append(
            Block(
                process=turn.process,
                round=turn.round,
                order=turn.order,
                loops=seat.loops,
                start_s=time_.start_s,
                value=seconds,
                flags=time_.flags,
                clock_hz=time_.clock_hz,
                hash_bytes_per_s=time_.hash_bytes_per_s,
                temperature_c=turn.temperature_c,
            )
        )


def _sample(plan: SamplingPlan, seats: Sequence[_Seat]) -> None:
    """Single steps, after the rounds: their clock readings would be in the blocks otherwise."""
    for seat in _standing(seats):
        with _blamed_on(seat.variant):
            samples = seat.worker.ask(messages.RunSamples(plan.samples), plan.timeout_s)
            seat.variant.samples_s = tuple(round(value, 9) for value in samples)


def _meter_energy(energy: EnergyPass, seats: Sequence[_Seat]) -> None:
    metered = _standing(seats)
    entrants = [Entrant(seat.variant.case, seat.worker, seat.variant.latency) for seat in metered]
    energy.play(entrants)
    for seat, one in zip(metered, entrants, strict=True):
        seat.variant.error = one.error


def _check_again(stage: Stage, seats: Sequence[_Seat]) -> None:
    for seat in _standing(seats):
        with _blamed_on(seat.variant):
            seat.worker.ask(messages.CheckAgain(), stage.plan.timeout_s)
            _check_source(seat, stage.side(seat.variant.case).source, stage.plan.timeout_s)


def _check_source(seat: _Seat, source: Source, timeout_s: float) -> None:
    """What should be another commit's code must not have come from the user's own tree."""
    if source.foreign is None:
        return
    request = messages.LoadedFrom(str(source.foreign), tuple(map(str, source.installed)))
    loaded: tuple[str, ...] = seat.worker.ask(request, timeout_s)
    if loaded:
        names = ", ".join(loaded[:5])
        raise TookNoEffect(f"it is not {source.rival} that ran: {names} came from {source.foreign}")


def _count(plan: SamplingPlan, seats: Sequence[_Seat]) -> None:
    """What a step of each variant does. Last, so that whatever it leaves behind disturbs nothing."""
    for seat in _standing(seats):
        try:
            seat.variant.counted = seat.worker.ask(messages.CountStep(), plan.timeout_s)
        except LeanmarkError as error:  # it costs only these numbers
            seat.variant.counted = Counted(counts={}, missing=dict.fromkeys(METRICS, str(error)))


def _standing(seats: Sequence[_Seat]) -> list[_Seat]:
    """Those of which nothing went wrong so far."""
    return [seat for seat in seats if seat.variant.error is None]


@contextlib.contextmanager
def _blamed_on(variant: Variant) -> Iterator[None]:
    """What goes wrong inside is this variant's result; the contest goes on without it."""
    try:
        yield
    except LeanmarkError as error:
        variant.error = error


def _place(replica: Replica, wall_s: float) -> dict[str, Any]:
    """``wall_s`` is what starting the processes of all variants and their rounds took."""
    return {
        "process": replica.index,
        "parent": replica.parent,
        "cores": list(replica.cores),
        "hash_seed": replica.layout.hash_seed,
        "padding_bytes": replica.layout.padding_bytes,
        "wait": replica.layout.wait,
        "wall_s": round(wall_s, 3),
    }
