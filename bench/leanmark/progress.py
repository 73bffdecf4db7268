"""How far a run is: a rough account of what its parts cost, so that the time left can be told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from leanmark.plan import Plan

Part = Literal["prepare", "contest", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """``done`` of ``total`` units of work, and what begins now."""

    done: float
    total: float
    doing: str


Notify = Callable[[Progress], None]


class Account:
    """Units are seconds on a typical machine, of which only the proportions matter; or of the budget."""

    def __init__(self, plan: Plan, notify: Notify) -> None:
        sampling = plan.sampling
        turn_s = 0.7 + sampling.rounds * sampling.block_s
        self._cost: dict[Part, float] = {
            "prepare": 3.0,
            "contest": sampling.processes * turn_s + sampling.energy_window_s,
            "memory": 2.0 * sampling.memory_processes,
        }
        chains = {(case.workload, case.technique, case.commit) for case in plan.cases}
        trainings = 1 if sampling.target is None else 1 + sampling.target_seeds
        self._total = trainings * len(chains) * self._cost["prepare"] + len(plan.cases) * (
            self._cost["contest"] + self._cost["memory"]
        )
        self._done = 0.0
        self._budget_s = sampling.budget_s
        self._started = time.monotonic()
        self._pending = 0.0
        self._notify = notify

    def begin(self, doing: str, part: Part, count: int = 1) -> None:
        """What was begun before is done now; ``count`` parts begin."""
        self._done = min(self._done + self._pending, self._total)
        self._pending = self._cost[part] * count
        if self._budget_s is None:
            self._notify(Progress(done=self._done, total=self._total, doing=doing))
        else:
            spent_s = min(time.monotonic() - self._started, self._budget_s)
            self._notify(Progress(done=spent_s, total=self._budget_s, doing=doing))
