"""Training runs to a quality target without training: what a worker would reply, and the records of that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from leanmark.measuring import quality_run as measuring
from leanmark.measuring import schedule
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.prepare_pass import Prepared
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.plan import QUICK
from leanmark.protocol import messages
from leanmark.protocol.messages import Notice, Ready, Trained, WorkloadSpec
from leanmark.record import BASELINE, Case, Measurement, Provenance, SamplingPlan

from . import synthetic

CASE = Case(workload="tiny", phase="training")
CHAINS = ("bf16", "prune", "prune+bf16", "int8")
STEPS = 19
RUN = synthetic.run()


class Steady(Meter[None]):
    """100 W, known to 1 %, by a sensor that is 5 % off."""

    unit, scope = "j", "machine"
    provenance = Provenance.MEASURED_COUNTER
    resolution = min_window_s = 0.0

    def unavailable(self) -> str | None:
        return None

    def start(self) -> None:
        return None

    def stop(self, token: None) -> Stopped:
        evidence = Evidence(source="s", gain=0.05)
        return partial(Reading, value=100.0, duration_s=1.0, uncertainty=1.0, evidence=evidence)


class Guess(Steady):
    provenance = Provenance.ESTIMATED_MODEL


class Script:
    """A launcher whose workers answer with ``replies``, one each."""

    def __init__(self, replies: Sequence[Trained | BaseException]) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, int]] = []
        self.devices: set[str] = set()

    def server(self, layout: object, source: object) -> Script:
        return self

    def fork(self) -> Script:
        return self

    def ask(self, request: messages.TrainToQuality, timeout_s: float, notice: Callable[..., None]) -> Trained:
        self.asked.append((request.chain, request.seed))
        self.devices.add(request.device)
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        notice(Notice("begins"))
        notice(Notice("ended"))
        return reply

    def close(self) -> None:
        return None


def trained(*qualities: float, time_s: float = 2.0) -> Trained:
    return Trained(
        metric="accuracy", target=0.9, reached=qualities[-1] >= 0.9, qualities=qualities,
        epochs=len(qualities), longest=4, steps=STEPS * len(qualities), time_s=time_s, looking_s=0.1 * time_s,
    )  # fmt: skip


def ready() -> Prepared:
    made = Ready(work="w", work_parts={}, time_s=1.0, model={}, refusals={}, verified={}, doubts=())
    chains = dict.fromkeys((BASELINE, *CHAINS), made)
    return Prepared(folder=Path(), spec=WorkloadSpec(name="tiny"), ready=chains)


def play(
    *replies: Trained | BaseException,
    meter: Meter[Any] | None = None,
    has_time_for: Callable[[float], bool] = lambda seconds: True,
    chains: Sequence[str] = (BASELINE,),
    plan: SamplingPlan = QUICK,
) -> tuple[dict[str, Measurement], list[tuple[str, int]]]:
    """The records by chain, and who was asked for which seed."""
    records, asked = in_turns(
        *replies, cases=[of(name) for name in chains], meter=meter, has_time_for=has_time_for, plan=plan
    )
    return {case.technique: one for case, one in records.items()}, asked


def in_turns(
    *replies: Trained | BaseException,
    cases: Sequence[Case],
    meter: Meter[Any] | None = None,
    has_time_for: Callable[[float], bool] = lambda seconds: True,
    plan: SamplingPlan = QUICK,
) -> tuple[dict[Case, Measurement], list[tuple[str, int]]]:
    """The records by case, and who was asked for which seed."""
    replicas = [schedule.replica(plan, 1, (0,), seed) for seed in range(plan.target_seeds)]
    trials = measuring.Trials(cases={case: ready() for case in cases}, replicas=replicas, target=0.9)
    script, found = Script(replies), dict[Case, measuring.Played]()
    turns: list[tuple[str, int]] = []
    with contextlib.suppress(KeyboardInterrupt):
        trials.play(
            found,
            cast(Launcher, script),
            meter,
            has_time_for,
            lambda case, seed: turns.append((case.label, seed)),
        )
    assert [chain.partition("@")[0] for chain, _ in turns] == [chain for chain, _ in script.asked]
    assert script.devices == {case.device for case in cases}
    return {case: measuring.record("run", case, trials, one) for case, one in found.items()}, turns


def of(technique: str, commit: str | None = None) -> Case:
    return replace(CASE, technique=technique, commit=commit)


def played(*replies: Trained | BaseException, **how: Any) -> Measurement:
    """The record of the baseline alone."""
    records, asked = play(*replies, **how)
    assert asked == [(BASELINE, seed) for seed in range(len(asked))]
    return records[BASELINE]


REACHED = (trained(0.5, 0.92), trained(0.6, 0.7, 0.91, time_s=3.0), trained(0.95, time_s=1.0))
