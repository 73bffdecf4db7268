"""Plays contests, first a look and then as much more as precision asks for and time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from leanmark.measuring import contest, schedule
from leanmark.measuring.launcher import Launcher
from leanmark.meters.base import Meter
from leanmark.record import Case, Measurement, SamplingPlan
from leanmark.statistics import precision
from leanmark.statistics.merge import merged


@dataclass(slots=True)
class Contest:
    """One contest and what was measured of it so far; ``cases`` shrinks when one fails."""

    stage: contest.Stage
    cases: list[Case]
    measurements: list[Measurement] = field(default_factory=list)
    replicas: int = 0
    open_s: float = 0.0
    round_s: float = 0.0

    def need(self, plan: SamplingPlan) -> float:
        """How much wider the widest interval is than wanted; above 1, more is needed."""
        return precision.need(precision.ratios(merged(self.measurements)), plan)

    def next_rounds(self, plan: SamplingPlan) -> int:
        found = precision.ratios(merged(self.measurements))
        return precision.rounds(found, self.open_s, self.round_s, plan)

    def cost_s(self, rounds: int) -> float:
        """What one more replica would take."""
        return self.open_s + rounds * self.round_s


class Engine:
    """``keep`` is called with every measurement as soon as it is made."""

    def __init__(
        self,
        plan: SamplingPlan,
        launcher: Launcher,
        cores: Sequence[int],
        meter: Meter[Any] | None,
        keep: Callable[[Measurement], None],
    ) -> None:
        self._plan = plan
        self._launcher = launcher
        self._cores = cores
        self._meter = meter
        self._keep = keep
        self._deadline = time.monotonic() + plan.budget_s if plan.budget_s is not None else None

    @property
    def out_of_time(self) -> bool:
        return not self.has_time_for(0.0)

    def has_time_for(self, seconds: float) -> bool:
        return self._deadline is None or time.monotonic() + seconds <= self._deadline

    def first_look(self, table: Contest) -> None:
        """The processes that every contest gets."""
        while table.replicas < self._plan.processes and table.cases:
            self._play(table, self._plan.rounds)

    def settle(self, tables: Sequence[Contest], begin: Callable[[Contest], None]) -> None:
        """More processes for whichever contest needs them most, until all are precise or time is up."""
        while True:
            candidates = [table for table in tables if self._can_go_on(table)]
            if not candidates:
                return
            neediest = max(candidates, key=lambda table: table.need(self._plan))
            begin(neediest)
            self._play(neediest, neediest.next_rounds(self._plan))

    def _can_go_on(self, table: Contest) -> bool:
        if not table.cases or table.replicas >= self._plan.max_processes:
            return False
        if table.need(self._plan) <= 1:
            return False
        return self._deadline is None or self.has_time_for(table.cost_s(table.next_rounds(self._plan)))

    def _play(self, table: Contest, rounds: int) -> None:
        cases = table.cases
        replica = schedule.replica(self._plan, cases[0].threads, self._cores, table.replicas, rounds)
        played = contest.play(table.stage, cases, replica, self._launcher, self._meter)
        table.replicas += 1
        table.open_s, table.round_s = played.open_s, played.round_s
        for one in played.measurements:
            table.measurements.append(one)
            self._keep(one)
        # a meter that fails costs its own numbers and no others
        timed = [one for one in played.measurements if one.pass_name == "latency"]
        failed = {one.case for one in timed if one.status != "ok"}
        table.cases = [case for case in cases if case not in failed]
