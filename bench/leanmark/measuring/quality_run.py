"""Training runs to a quality target: a process for each case and seed, and one record of each case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from leanmark import units
from leanmark.errors import LeanmarkError, OutOfTime
from leanmark.measuring.cost import CostMeter, Metered
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.outcome import failure
from leanmark.measuring.prepare_pass import TIMEOUT_S, Prepared
from leanmark.measuring.schedule import Replica
from leanmark.meters.base import Meter
from leanmark.plan import possible
from leanmark.protocol import messages
from leanmark.record import BASELINE, Block, Case, Finding, Measurement, Series, short_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run, the ``order``-th with its seed; ``energy`` is ``None`` with the ``reason``."""

    seed: int
    order: int
    trained: messages.Trained
    energy: Metered | None
    reason: str | None


@dataclass(slots=True)
class Played:
    """What became of one case: its runs, and why there are no more of them."""

    trials: list[Trial] = field(default_factory=list)
    error: LeanmarkError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """What is asked for: a run of each of ``cases`` on each of ``replicas``, to ``target`` (``None``: the
    workload's own). Each case trains by the code of its ``prepared`` models; the first is a baseline."""

    cases: Mapping[Case, Prepared]
    replicas: Sequence[Replica]
    target: float | None

    def play(
        self,
        played: dict[Case, Played],
        launcher: Launcher,
        meter: Meter[Any] | None,
        has_time_for: Callable[[float], bool],
        begin: Callable[[Case, int], None] = lambda case, seed: None,
    ) -> None:
        """The first case's first run in any case, those of the others and of other seeds while there is time.

        All cases have their turn with one seed before the next; the next begins one case further on. What
        a run came to is in ``played`` as soon as it has ended: somebody may not wait for the next.
        """
        waiting, longest_s = list(self.cases), 0.0
        for seed, replica in enumerate(self.replicas):
            if not waiting or (seed and not has_time_for(longest_s)):
                break
            first = seed % len(waiting)
            for order, case in enumerate((*waiting[first:], *waiting[:first])):
                if case not in waiting:
                    continue
                try:
                    if played and not seed and not has_time_for(0.0):
                        raise OutOfTime
                    begin(case, seed)
                    one = self._run(case, seed, order, replica, launcher, meter)
                except LeanmarkError as error:
                    played.setdefault(case, Played()).error = error
                    waiting = [other for other in waiting if not _stopped(other, case, seed)]
                else:
                    played.setdefault(case, Played()).trials.append(one)
            round_s = sum(one.trials[-1].trained.time_s for one in played.values() if one.trials)
            longest_s = max(longest_s, round_s)

    def _run(
        self,
        case: Case,
        seed: int,
        order: int,
        replica: Replica,
        launcher: Launcher,
        meter: Meter[Any] | None,
    ) -> Trial:
        prepared = self.cases[case]
        request = messages.TrainToQuality(
            workload=prepared.spec,
            chain=case.technique,
            target=self.target,
            seed=seed,
            place=messages.Place(cores=replica.cores, threads=replica.layout.threads),
            device=case.device,
        )
        worker = launcher.server(replica.layout, prepared.source).fork()
        with CostMeter(meter) as metered:
            try:
                trained: messages.Trained = worker.ask(request, TIMEOUT_S, metered.notice)
            finally:
                worker.close()
        energy = metered.energy(trained.time_s)
        return Trial(seed=seed, order=order, trained=trained, energy=energy, reason=metered.reason)


def cases(
    like: Case, sides: Mapping[str | None, Prepared], techniques: Iterable[str]
) -> dict[Case, Prepared]:
    """What trains of the workload of ``like``, the baseline first and the commits of ``sides`` in turns: the
    ``techniques`` that could be made and have a training step on its device."""
    subject = replace(like, backend="eager", phase="training", batch=1, sentinel=False)
    trained = (name for name in techniques if possible(name, "eager", like.device, "training", []))
    return {
        replace(subject, technique=name, commit=commit): prepared
        for name in dict.fromkeys((BASELINE, *trained))
        for commit, prepared in sides.items()
        if name in prepared.ready
    }


def _stopped(other: Case, failed: Case, seed: int) -> bool:
    """Whether ``other`` has no more turns: what stops the unchanged model stops all of its commit."""
    return other == failed or (not seed and failed.technique == BASELINE and other.commit == failed.commit)


def record(run: str, case: Case, trials: Trials, played: Played) -> Measurement:
    """What became of the runs of ``case``; there is a number only where every one of them reached the target.

    The mean of those that did would be that of the lucky ones.
    """
    work, found = trials.cases[case].ready[BASELINE].work, played.trials
    if played.error is not None:
        return failure(run, case, "quality_run", work, played.error)
    reason = _not_reached(found)
    return Measurement(
        run=run,
        case=case,
        pass_name="quality_run",
        status="skipped" if reason else "ok",
        reason=reason,
        work=work,
        contest=short_hash([run, "quality_run", case.workload]),
        series=() if reason else tuple(_series(found)),
        findings=tuple(_findings(found, len(trials.replicas))),
        executed={
            "metric": found[0].trained.metric,
            "target": found[0].trained.target,
            "longest": found[0].trained.longest,
            "operators": dict(found[0].trained.operators),
            "runs": [
                {
                    "seed": one.seed,
                    "epochs": one.trained.epochs,
                    "steps": one.trained.steps,
                    "qualities": list(one.trained.qualities),
                    "time_s": one.trained.time_s,
                    "looking_s": one.trained.looking_s,
                    "earlier_s": one.trained.earlier_s,
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
    """Seeds are the unit of replication, as processes are elsewhere."""
    return tuple(
        Block(
            process=one.seed, round=0, order=one.order, value=value, loops=1, start_s=0.0, uncertainty=doubt
        )
        for one, value, doubt in values
    )


def _findings(found: Sequence[Trial], asked: int) -> Iterator[Finding]:
    if len(found) < asked:
        message = f"{len(found)} of {asked} training runs to the target were made"
        yield Finding(code="fewer-quality-runs", message=message)
    reason = next((one.reason for one in found if one.energy is None), None)
    if reason:
        yield Finding(code="no-energy-of-run", message=f"no energy of the training run: {reason}")
    yield from dict.fromkeys(finding for one in found if one.energy for finding in one.energy.findings)
