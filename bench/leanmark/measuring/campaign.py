"""One run of the tool: a plan goes in, measurements come out and are on disk before the next begins.

Everything is done when first needed, and once: asking for a case prepares the models of its workload,
plays the contest it belongs to, and measures its memory.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import leanmark
from leanmark.errors import LeanmarkError, OutOfTime
from leanmark.measuring import (
    contest,
    count_pass,
    environment,
    memory_pass,
    prepare_pass,
    quality_run,
    schedule,
)
from leanmark.measuring.engine import Contest, Engine
from leanmark.measuring.gpu_lock import GpuLock
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.outcome import failure
from leanmark.measuring.prepare_pass import UNPREPARED, Prepared
from leanmark.measuring.source import HERE, Source
from leanmark.measuring.target import energy_meter
from leanmark.plan import Plan, check_budget
from leanmark.progress import Account, Notify
from leanmark.protocol import messages
from leanmark.protocol.process import allowed_cores
from leanmark.record import BASELINE, Case, Cost, Measurement, Run, short_hash
from leanmark.rival import Rival
from leanmark.store import RunWriter

Sides = Mapping[str | None, Prepared]
"""The models of one workload by commit; ``None`` is the run's own."""


class Campaign:
    """Use as a context manager: leaving it ends every process, whatever happened.

    ``rival`` is the code of the other commit, for a plan that has cases of it.

    Raises:
        BadPlan: more threads than cores, or less time than the first look takes.
        DeviceBusy: another run measures on this GPU.
        NotComparable: the other commit's leanmark cannot work with this one's.
        UnwritableResults: before anything is measured.
    """

    def __init__(
        self, plan: Plan, results: Path, notify: Notify = lambda _: None, rival: Source | None = None
    ) -> None:
        self.plan = plan
        self.run = describe(plan, rival.rival if rival else None)
        self._rival = rival
        self.measurements: list[Measurement] = []
        self._account = Account(plan, notify)
        self._cores = allowed_cores()
        for threads in {case.threads for case in plan.cases}:
            schedule.lanes(threads, self._cores)  # refuses what does not fit before anything starts
        check_budget(plan)
        self._prepared: dict[tuple[str, str | None], Prepared] = {}
        self._contests: dict[tuple[str, ...], Contest | None] = {}
        self._trained: set[str] = set()
        with contextlib.ExitStack() as stack:  # what was opened is closed where the rest cannot be
            if plan.gpu:
                stack.callback(GpuLock(plan.gpu).close)
            self._meter = energy_meter(plan.gpu)
            # models are made on the processor, whatever they run on
            self._making_meter = energy_meter("") if plan.gpu else self._meter
            for meter in {self._meter, self._making_meter}:
                if meter is not None:
                    stack.callback(meter.close)
            self._launcher = stack.enter_context(Launcher(plan.gpu))
            self._greet(rival)
            self._writer = RunWriter.create(results, self.run)
            stack.callback(self._writer.close)
            self._open = stack.pop_all()
        self._engine = Engine(plan.sampling, self._launcher, self._cores, self._meter, self._keep)

    @property
    def path(self) -> Path:
        """The results file."""
        return self._writer.path

    @property
    def unprepared(self) -> dict[str, LeanmarkError]:
        """The workloads whose model could not even be made, at no commit: nothing of them was measured."""
        made = {workload for (workload, _), one in self._prepared.items() if BASELINE in one.ready}
        return {
            workload: one.errors[BASELINE]
            for (workload, _), one in self._prepared.items()
            if BASELINE in one.errors and workload not in made
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def _greet(self, rival: Source | None) -> None:
        """Find out whether the other commit takes part before anything is measured or written."""
        if rival is None:
            return
        first = schedule.replica(self.plan.sampling, self.plan.cases[0].threads, self._cores, 0)
        self._launcher.server(first.layout, rival).greet()

    def run_all(self) -> None:
        """A first look at every case, in the order of the plan; then precision where it is needed most."""
        for case in self.plan.cases:
            self._look(case)
        tables = [table for table in self._contests.values() if table is not None]
        self._engine.settle(tables, self._say_more)

    def measure(self, case: Case) -> tuple[Measurement, ...]:
        """All measurements of ``case``, made now unless they were made before.

        With a budget, which all cases share, this runs the whole plan.
        """
        if case.pair_key not in self._contests:
            if self.plan.sampling.budget_s is not None:
                self.run_all()
            else:
                self._look(case)
                table = self._contests[case.pair_key]
                if table is not None:
                    self._engine.settle([table], self._say_more)
        return tuple(one for one in self.measurements if one.case == case)

    def _look(self, case: Case) -> None:
        """The first look at the contest of ``case``, and the memory of all that take part."""
        if case.pair_key in self._contests:
            return
        self._contests[case.pair_key] = None
        rivals = [other for other in self.plan.cases if other.pair_key == case.pair_key]
        if self._engine.out_of_time:
            error = OutOfTime()
            for rival in rivals:
                self._keep(failure(self.run.id, rival, "latency", UNPREPARED, error))
            return
        sides = {commit: self._prepare(replace(case, commit=commit)) for commit in _commits(rivals)}
        self._train_to_quality(case, sides)
        fit = list(self._fit(rivals, sides))
        if not fit:
            return
        table = self._seat(fit, sides)
        self._contests[case.pair_key] = table
        name = f"{case.workload}: {case.phase}, batch {case.batch}"
        self._account.begin(name, "contest", len(fit))
        self._engine.first_look(table)
        self._account.begin(f"{name}, memory", "memory", len(table.cases))
        self._measure_memory([one for one in table.cases if not one.sentinel], sides)

    def _say_more(self, table: Contest) -> None:
        case = table.cases[0]
        doing = f"{case.workload}: {case.phase}, batch {case.batch}, process {table.replicas + 1}"
        self._account.begin(doing, "contest", 0)

    def _seat(self, fit: Sequence[Case], sides: Sides) -> Contest:
        ours, other = sides[None], next((one for commit, one in sides.items() if commit), None)
        return Contest(
            stage=contest.Stage(
                run=self.run.id,
                contest=short_hash([self.run.id, *fit[0].pair_key]),
                plan=self.plan.sampling,
                workload=ours.spec,
                folder=str(ours.folder),
                works={case: sides[case.commit].work(case) for case in fit},
                rival=contest.Side(source=other.source, folder=str(other.folder)) if other else None,
            ),
            cases=list(fit),
        )

    def _prepare(self, case: Case) -> Prepared:
        """The models of this case's workload, made by the code of its commit."""
        key = case.workload, case.commit
        if key in self._prepared:
            return self._prepared[key]
        prepared = Prepared(
            folder=self._launcher.folder / f"workload-{len(self._prepared)}",
            spec=self.plan.workloads[case.workload],
            source=HERE if case.commit is None or self._rival is None else self._rival,
        )
        self._prepared[key] = prepared
        ours = [other for other in self.plan.cases if (other.workload, other.commit) == key]
        first = self._start_parents(case.threads, prepared.source)
        for name in prepare_pass.chains(other.technique for other in ours):
            where = f" at {case.commit}" if case.commit else ""
            self._account.begin(f"{case.workload}: preparing {name}{where}", "prepare")
            subject = replace(
                case, technique=name, backend="eager", phase="inference", batch=1, sentinel=False
            )
            backends = prepare_pass.backends_for(name, ours)
            try:
                meter = self._making_meter
                ready, costs = prepare_pass.apply(
                    name, prepared, backends, first, self._launcher, meter, case.device
                )
            except LeanmarkError as error:
                prepared.errors[name] = error
                self._keep(failure(self.run.id, subject, "prepare", UNPREPARED, error))
                if name == BASELINE:  # every chain begins with it
                    break
            else:
                prepared.ready[name] = ready
                self._keep_ready(subject, ready, costs)
        return prepared

    def _train_to_quality(self, case: Case, sides: Sides) -> None:
        """Once for each workload: its techniques at all commits, in turns."""
        sampling, threads = self.plan.sampling, case.threads
        if sampling.target is None or case.workload in self._trained:
            return
        self._trained.add(case.workload)
        techniques = [other.technique for other in self.plan.cases if other.workload == case.workload]
        cases = quality_run.cases(case, sides, techniques)
        refused = prepare_pass.refusal(tuple(sides.values()))
        if refused is not None:
            for one, made in cases.items():
                work = made.ready[BASELINE].work
                self._keep(failure(self.run.id, one, "quality_run", work, refused))
            return
        trials = quality_run.Trials(
            cases=cases,
            replicas=[
                schedule.replica(sampling, threads, self._cores, seed)
                for seed in range(sampling.target_seeds)
            ],
            target=sampling.target if isinstance(sampling.target, float) else None,
        )

        def begin(one: Case, seed: int) -> None:
            self._account.begin(
                f"{case.workload}: training {one.label} to its target, seed {seed}", "prepare"
            )

        played: dict[Case, quality_run.Played] = {}
        try:
            trials.play(played, self._launcher, self._meter, self._engine.has_time_for, begin)
        finally:  # of a run that is interrupted, too, what is finished is kept
            for one, found in played.items():
                self._keep(quality_run.record(self.run.id, one, trials, found))

    def _start_parents(self, threads: int, source: Source) -> schedule.Replica:
        """Let the preloaded parents import while the first model trains; the first of them trains it."""
        sampling = self.plan.sampling
        made = [
            schedule.replica(sampling, threads, self._cores, index)
            for index in range(min(sampling.processes, schedule.PARENTS))
        ]
        for replica in made:
            self._launcher.server(replica.layout, source)
        return made[0]

    def _keep_ready(self, subject: Case, ready: messages.Ready, costs: Mapping[str, Cost]) -> None:
        for backend, model in ready.model.items():
            self._keep(
                Measurement(
                    run=self.run.id,
                    case=replace(subject, backend=backend),
                    pass_name="prepare",
                    status="ok",
                    work=ready.work,
                    model=model,
                    cost=costs[backend],
                    findings=ready.doubts,
                    executed={"verified": dict(ready.verified)},
                )
            )

    def _fit(self, rivals: Sequence[Case], sides: Sides) -> Iterator[Case]:
        """Those whose model is ready; the others get their record here."""
        refused = prepare_pass.refusal(tuple(sides.values()))
        for case in rivals:
            error = refused or sides[case.commit].obstacle(case)
            if error is None:
                yield case
            else:
                self._keep(failure(self.run.id, case, "latency", sides[case.commit].work(case), error))

    def _measure_memory(self, sound: Sequence[Case], sides: Sides) -> None:
        if not sound:
            return
        first = sound[0]
        lanes = schedule.lanes(first.threads, self._cores)
        wanted = [
            (case, schedule.replica(self.plan.sampling, case.threads, self._cores, index).layout)
            for case in sound
            for index in range(self.plan.sampling.memory_processes)
        ]
        jobs = [
            memory_pass.Job(
                layout,
                self._memory_request(case, lanes[index % len(lanes)], sides),
                sides[case.commit].source,
            )
            for index, (case, layout) in enumerate(wanted)
        ]
        timeout_s = self.plan.sampling.timeout_s
        together = 1 if self.plan.gpu else len(lanes)  # the board's memory is everybody's
        answers = memory_pass.measure(jobs, together, self._launcher, timeout_s)
        for case, group in groupby(zip(jobs, answers, strict=True), lambda pair: pair[0].request.case):
            found = list(group)
            errors = [answer for _, answer in found if isinstance(answer, LeanmarkError)]
            readings = [answer for _, answer in found if isinstance(answer, messages.MemoryReading)]
            work = sides[case.commit].work(case)
            if errors:
                self._keep(failure(self.run.id, case, "memory", work, errors[0]))
            else:
                job = found[0][0]
                counts, missing = count_pass.instructions(job, self.plan.sampling)
                self._keep(memory_pass.record(self.run.id, work, job.request, readings, counts, missing))

    def _memory_request(self, case: Case, cores: tuple[int, ...], sides: Sides) -> messages.PeakMemory:
        prepared = sides[case.commit]
        return messages.PeakMemory(
            case=case,
            workload=prepared.spec,
            folder=str(prepared.folder),
            place=messages.Place(cores=cores, threads=case.threads),
            steps=self.plan.sampling.memory_steps,
        )

    def _keep(self, measurement: Measurement) -> None:
        """To disk first."""
        self._writer.append(measurement)
        self.measurements.append(measurement)


def _commits(cases: Sequence[Case]) -> dict[str | None, None]:
    """Each commit once, the run's own first."""
    return dict.fromkeys([None, *(case.commit for case in cases)])


def describe(plan: Plan, against: Rival | None = None) -> Run:
    """What all measurements of a run that starts now will share."""
    now = datetime.now(UTC)
    return Run(
        id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        started=now.isoformat(timespec="seconds"),
        leanmark=leanmark.__version__,
        plan=plan.sampling,
        environment=environment.collect(gpu=plan.gpu, backends={case.backend for case in plan.cases}),
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        commit=environment.commit(Path.cwd()),
        intensity=plan.intensity,
        site=plan.site,
        against=against,
    )
