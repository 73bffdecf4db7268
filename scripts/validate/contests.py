"""Contests as leanmark plays them, many of them: engine, processes and verdicts are the real ones.

Only what a run does once is shared: the preloaded parents, renewed every ``GENERATION`` contests, and the
prepared models. The meter of energy and the memory pass are left out, and so is the sentinel, which could
only take verdicts away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import rivals
from rivals import Answer
from work import UNITS

from leanmark.measuring import contest, prepare_pass, schedule
from leanmark.measuring.campaign import describe
from leanmark.measuring.engine import Contest, Engine
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.prepare_pass import Prepared
from leanmark.plan import FULL, Plan
from leanmark.protocol import messages
from leanmark.protocol.process import allowed_cores
from leanmark.reading import gate, tabulate
from leanmark.record import BASELINE, Case, Comparison
from leanmark.store import Records

GENERATION = 60

SPEC = messages.WorkloadSpec(name="work:model", data="work:loaders")
BASE = Case(workload=SPEC.name)
RULES = gate.parse("worse:latency")
SIDE_S = 0.5
"""What one side of a contest of five processes is measured for, and so what the other tools get."""


PLAN = replace(FULL, profile="validate", rounds=10, block_s=0.01, warmup_s=0.5, samples=0, timeout_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What leanmark made of one contest; ``gate`` is whether a gate on latency would object."""

    comparison: Comparison
    gate: bool
    seconds: float


class Arena:
    """Use as a context manager. ``extras`` are the units that the candidates have more than the baseline."""

    def __init__(self, extras: Iterable[int], budget_s: float, generation: int) -> None:
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers import ``work`` by name
        self._plan = replace(PLAN, budget_s=budget_s, seed=generation)
        self._run = describe(Plan(workloads={SPEC.name: SPEC}, cases=(BASE,), sampling=self._plan))
        self._cases = {units: candidate(units) for units in extras}
        self._stack = ExitStack()
        self._cores = allowed_cores()

    def __enter__(self) -> Self:
        self._launcher = self._stack.enter_context(Launcher())
        replicas = [schedule.replica(self._plan, 1, self._cores, index) for index in range(schedule.PARENTS)]
        for replica in replicas:
            self._launcher.server(replica.layout)
        self._layout = replicas[0].layout
        self._prepared = Prepared(folder=self._launcher.folder / "work", spec=SPEC)
        for name in (BASELINE, *(case.technique for case in self._cases.values())):
            ready, _ = prepare_pass.apply(
                name, self._prepared, ("eager",), replicas[0], self._launcher, None, BASE.device
            )
            self._prepared.ready[name] = ready
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def judge(self, units: int, seed: int, cores: Sequence[int]) -> Judged:
        """One contest of the baseline and the candidate with ``units`` more, on ``cores``."""
        cases = [BASE, self._cases[units]]
        start = time.monotonic()
        table = Contest(
            stage=contest.Stage(
                run=self._run.id,
                contest=str(seed),
                plan=replace(self._plan, seed=seed),
                workload=SPEC,
                folder=str(self._prepared.folder),
                works={case: self._prepared.work(case) for case in cases},
            ),
            cases=cases,
        )
        engine = Engine(self._plan, self._launcher, cores, None, lambda _: None)
        engine.first_look(table)
        engine.settle([table], lambda _: None)
        seconds = time.monotonic() - start
        records = Records(path=Path(), run=self._run, measurements=tuple(table.measurements))
        tables = tabulate.build([records])
        [row] = [row for row in tables[0].rows if row.role == "technique"]
        if row.latency is None or row.latency.comparison is None:
            raise RuntimeError(f"nothing was measured: {row.reason}")
        rulings = gate.rulings(tables, RULES)
        return Judged(
            comparison=row.latency.comparison,
            gate=any(ruling.verdict == "worse" for ruling in rulings),
            seconds=seconds,
        )

    def ask_rivals(self, units: int) -> dict[str, Answer]:
        """First the baseline, then the candidate, each in a process that may use every core."""
        baseline, candidate = (self._steps(case) for case in (BASE, self._cases[units]))
        return {name: rule(baseline, candidate) for name, rule in rivals.RULES.items()}

    def _steps(self, case: Case) -> rivals.Samples:
        worker = self._launcher.server(self._layout).fork()
        try:
            opened: messages.Opened = worker.ask(
                messages.Open(
                    case=case,
                    workload=SPEC,
                    folder=str(self._prepared.folder),
                    place=messages.Place(cores=self._cores, threads=1),
                    warmup_s=self._plan.warmup_s,
                    block_s=self._plan.block_s,
                    judge_quality=False,
                ),
                self._plan.timeout_s,
            )
            count = max(rivals.RUNS, round(SIDE_S / opened.step_s))
            samples: rivals.Samples = worker.ask(messages.RunSamples(count), self._plan.timeout_s)
            return samples
        finally:
            worker.close()


def candidate(units: int) -> Case:
    return replace(BASE, technique=f"work:Extra(units={units})")


def true_ratio(units: int) -> float:
    """Of the candidate with ``units`` more, by counting."""
    return (UNITS + units) / UNITS
