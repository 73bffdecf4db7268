"""One run of the tool: a plan goes in, measurements come out and are on disk before the next begins.

Everything is done when first needed, and once: asking for a case prepares the models of its workload,
plays the contest it belongs to, and measures its memory.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import leanmark
from leanmark import contest, environment, memory_pass, messages, prepare_pass, schedule
from leanmark.errors import LeanmarkError
from leanmark.launcher import Launcher
from leanmark.meters.codecarbon import CodeCarbon
from leanmark.outcome import failure
from leanmark.plan import Plan
from leanmark.prepare_pass import UNPREPARED, Prepared
from leanmark.process import allowed_cores
from leanmark.progress import Account, Notify
from leanmark.record import Case, Cost, Measurement, Run, short_hash
from leanmark.store import RunWriter


class Campaign:
    """Use as a context manager: leaving it ends every process, whatever happened.

    Raises:
        BadPlan: more threads than cores.
        UnwritableResults: before anything is measured.
    """

    def __init__(self, plan: Plan, results: Path, notify: Notify = lambda _: None) -> None:
        self.plan = plan
        self.run = describe(plan)
        self.measurements: list[Measurement] = []
        self._account = Account(plan, notify)
        self._meter = None if CodeCarbon().unavailable() else CodeCarbon()
        self._replicas = {
            threads: schedule.replicas(plan.sampling, threads, "passive", allowed_cores())
            for threads in {case.threads for case in plan.cases}
        }
        self._prepared: dict[str, Prepared] = {}
        self._played: set[tuple[str, ...]] = set()
        self._writer = RunWriter.create(results, self.run)
        self._launcher = Launcher()

    @property
    def path(self) -> Path:
        """The results file."""
        return self._writer.path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._launcher.__exit__(kind, error, trace)
        if self._meter is not None:
            self._meter.close()
        self._writer.close()

    def run_all(self) -> None:
        """Measure every case of the plan, in its order."""
        for case in self.plan.cases:
            self.measure(case)

    def measure(self, case: Case) -> tuple[Measurement, ...]:
        """All measurements of ``case``, made now unless they were made before."""
        prepared = self._prepare(case)
        if case.pair_key not in self._played:
            self._played.add(case.pair_key)
            rivals = [other for other in self.plan.cases if other.pair_key == case.pair_key]
            fit = list(self._fit(rivals, prepared))
            if fit:
                self._play(fit, prepared)
                self._measure_memory(fit, prepared)
        return tuple(one for one in self.measurements if one.case == case)

    def _prepare(self, case: Case) -> Prepared:
        """The models of this case's workload."""
        if case.workload in self._prepared:
            return self._prepared[case.workload]
        prepared = Prepared(
            folder=self._launcher.folder / f"workload-{len(self._prepared)}",
            spec=self.plan.workloads[case.workload],
        )
        self._prepared[case.workload] = prepared
        ours = [other for other in self.plan.cases if other.workload == case.workload]
        for replica in self._replicas[case.threads]:
            self._launcher.server(replica.layout)  # they import while the first model trains
        for name in prepare_pass.chains(other.technique for other in ours):
            self._account.begin(f"{case.workload}: preparing {name}", "prepare")
            subject = replace(case, technique=name, backend="eager", phase="inference", batch=1)
            backends = prepare_pass.backends_for(name, ours)
            try:
                ready, cost = prepare_pass.apply(
                    name,
                    prepared,
                    backends,
                    self._replicas[case.threads][0],
                    self._launcher,
                    self._meter,
                )
            except LeanmarkError as error:
                prepared.errors[name] = error
                self._keep(failure(self.run.id, subject, "prepare", UNPREPARED, error))
            else:
                prepared.ready[name] = ready
                self._keep_ready(subject, ready, cost)
        return prepared

    def _keep_ready(self, subject: Case, ready: messages.Ready, cost: Cost) -> None:
        for backend, model in ready.model.items():
            self._keep(
                Measurement(
                    run=self.run.id,
                    case=replace(subject, backend=backend),
                    pass_name="prepare",
                    status="ok",
                    work=ready.work,
                    model=model,
                    cost=cost,
                    findings=ready.doubts,
                    executed={"verified": dict(ready.verified)},
                )
            )

    def _fit(self, rivals: Sequence[Case], prepared: Prepared) -> Iterator[Case]:
        """Those whose model is ready; the others get their record here."""
        for case in rivals:
            error = prepared.obstacle(case)
            if error is None:
                yield case
            else:
                self._keep(failure(self.run.id, case, "latency", prepared.work(case), error))

    def _play(self, fit: Sequence[Case], prepared: Prepared) -> None:
        first = fit[0]
        self._account.begin(f"{first.workload}: {first.phase}, batch {first.batch}", "contest", len(fit))
        stage = contest.Stage(
            run=self.run.id,
            contest=short_hash([self.run.id, *first.pair_key]),
            plan=self.plan.sampling,
            workload=prepared.spec,
            folder=str(prepared.folder),
            works={case: prepared.work(case) for case in fit},
        )
        replicas = self._replicas[first.threads]
        for measurement in contest.run(stage, fit, replicas, self._launcher, self._meter):
            self._keep(measurement)

    def _measure_memory(self, fit: Sequence[Case], prepared: Prepared) -> None:
        failed = {one.case for one in self.measurements if one.status != "ok"}
        sound = [case for case in fit if case not in failed]
        first = fit[0]
        self._account.begin(
            f"{first.workload}: {first.phase}, batch {first.batch}, memory", "memory", len(sound)
        )
        lanes = schedule.lanes(first.threads, allowed_cores())
        wanted = [
            (case, replica.layout)
            for case in sound
            for replica in self._replicas[case.threads][: self.plan.sampling.memory_processes]
        ]
        jobs = [
            memory_pass.Job(layout, self._memory_request(case, lanes[index % len(lanes)], prepared))
            for index, (case, layout) in enumerate(wanted)
        ]
        timeout_s = self.plan.sampling.timeout_s
        answers = memory_pass.measure(jobs, len(lanes), self._launcher, timeout_s)
        for case, group in groupby(zip(jobs, answers, strict=True), lambda pair: pair[0].request.case):
            found = list(group)
            errors = [answer for _, answer in found if isinstance(answer, LeanmarkError)]
            readings = [answer for _, answer in found if isinstance(answer, messages.MemoryReading)]
            work = prepared.work(case)
            if errors:
                self._keep(failure(self.run.id, case, "memory", work, errors[0]))
            else:
                self._keep(memory_pass.record(self.run.id, work, found[0][0].request, readings))

    def _memory_request(self, case: Case, cores: tuple[int, ...], prepared: Prepared) -> messages.PeakMemory:
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


def describe(plan: Plan) -> Run:
    """What all measurements of a run that starts now will share."""
    now = datetime.now(UTC)
    return Run(
        id=f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        started=now.isoformat(timespec="seconds"),
        leanmark=leanmark.__version__,
        plan=plan.sampling,
        environment=environment.collect(),
        command=(Path(sys.argv[0]).name, *sys.argv[1:]),
        commit=environment.commit(Path.cwd()),
    )
