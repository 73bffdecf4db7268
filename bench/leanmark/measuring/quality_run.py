"""Training runs to a quality target: one process for each seed, and one record of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leanmark import units
from leanmark.errors import LeanmarkError
from leanmark.measuring.cost import CostMeter, Metered
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.outcome import failure
from leanmark.measuring.prepare_pass import TIMEOUT_S, Prepared
from leanmark.measuring.schedule import Replica
from leanmark.meters.base import Meter
from leanmark.protocol import messages
from leanmark.record import BASELINE, Block, Case, Finding, Measurement, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run; ``energy`` is ``None`` with the ``reason``."""

    seed: int
    trained: messages.Trained
    energy: Metered | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What is asked for: a run on each of ``replicas``, to ``target`` (``None``: the workload's own)."""

    prepared: Prepared
    replicas: Sequence[Replica]
    target: float | None

    def play(
        self, launcher: Launcher, meter: Meter[Any] | None, has_time_for: Callable[[float], bool]
    ) -> Iterator[Trial]:
        """The first in any case, and as many more as there is time for.

        Raises:
            LeanmarkError: what went wrong in a run.
        """
        longest_s = 0.0
        for seed, replica in enumerate(self.replicas):
            if seed and not has_time_for(longest_s):
                return
            one = self._run(seed, replica, launcher, meter)
            longest_s = max(longest_s, one.trained.time_s)
            yield one

    def _run(self, seed: int, replica: Replica, launcher: Launcher, meter: Meter[Any] | None) -> Trial:
        request = messages.TrainToQuality(
            workload=self.prepared.spec,
            target=self.target,
            seed=seed,
            place=messages.Place(cores=replica.cores, threads=replica.layout.threads),
        )
        worker = launcher.server(replica.layout, self.prepared.source).fork()
        with CostMeter(meter) as metered:
            try:
                trained: messages.Trained = worker.ask(request, TIMEOUT_S, metered.notice)
            finally:
                worker.close()
        energy = metered.energy(trained.time_s)
        return Trial(seed=seed, trained=trained, energy=energy, reason=metered.reason)


def record(run: str, case: Case, trials: Trials, made: Iterator[Trial]) -> Measurement:
    """Plays the runs; there is a number only where every one of them reached the target.

    The mean of those that did would be that of the lucky ones.
    """
    ready = trials.prepared.ready[BASELINE]
    found: list[Trial] = []
    try:
        found.extend(made)
    except LeanmarkError as error:
        return failure(run, case, "quality_run", ready.work, error)
    reason = _not_reached(found)
    return Measurement(
        run=run,
        case=case,
        pass_name="quality_run",
        status="skipped" if reason else "ok",
        reason=reason,
        work=ready.work,
        series=() if reason else tuple(_series(found)),
        findings=tuple(_findings(found, len(trials.replicas))),
        executed={
            "metric": found[0].trained.metric,
            "target": found[0].trained.target,
            "longest": found[0].trained.longest,
            "runs": [
                {
                    "seed": one.seed,
                    "epochs": one.trained.epochs,
                    "steps": one.trained.steps,
                    "qualities": list(one.trained.qualities),
                    "time_s": one.trained.time_s,
                    "looking_s": one.trained.looking_s,
                }
                for one in found
            ],
        },
    )


def _not_reached(found: Sequence[Trial]) -> str | None:
    first = found[0].trained
    short = [max(one.trained.qualities) for one in found if not one.trained.reached]
    if not short:
        return None
    best = ", ".join(units.quality(first.metric, value) for value in short)
    return (
        f"{first.metric} {units.quality(first.metric, first.target)} was not reached in {first.longest} "
        f"epochs by {len(short)} of {len(found)} runs, at best {best}"
    )


def _series(found: Sequence[Trial]) -> Iterator[Series]:
    times = [(one, one.trained.time_s, None) for one in found]
    yield Series(metric="run_to_quality_s", meter="wall", blocks=_blocks(times))
    energies = [(one, one.energy.joules, one.energy.doubt_j) for one in found if one.energy]
    metered = found[0].energy
    if metered is not None and len(energies) == len(found):
        yield Series(
            metric="run_to_quality_j",
            meter=metered.meter,
            scope=metered.scope,
            provenance=metered.provenance,
            gain=metered.gain,
            blocks=_blocks(energies),
        )


def _blocks(values: Sequence[tuple[Trial, float, float | None]]) -> tuple[Block, ...]:
    return tuple(
        Block(process=one.seed, round=0, order=0, value=value, loops=1, start_s=0.0, uncertainty=doubt)
        for one, value, doubt in values
    )


def _findings(found: Sequence[Trial], asked: int) -> Iterator[Finding]:
    if len(found) < asked:
        message = f"time was left for {len(found)} of {asked} training runs to the target"
        yield Finding(code="fewer-quality-runs", message=message)
    reason = next((one.reason for one in found if one.energy is None), None)
    if reason:
        yield Finding(code="no-energy-of-run", message=f"no energy of the training run: {reason}")
    yield from dict.fromkeys(finding for one in found if one.energy for finding in one.energy.findings)
