"""What a step does, as series of a record: the same on every run, so it needs no interval."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

from leanmark.errors import LeanmarkError
from leanmark.machine import callgrind
from leanmark.machine.counters import Counted
from leanmark.measuring.memory_pass import Job
from leanmark.record import Block, SamplingPlan, Series, short_hash

STEPS = 3
"""Steps per run of callgrind: their number is divided out, and each takes fifty times its usual time."""

TIMEOUT_S = 1800.0

METERS: Mapping[str, str] = {"instructions": "perf"}
"""Who counted, where it is not the backend."""


def series(found: Counted, backend: str) -> tuple[Series, ...]:
    """One series for each counter of the backend's and the processor's."""
    return tuple(_series(name, value, METERS.get(name, backend)) for name, value in found.counts.items())


def instructions(job: Job, plan: SamplingPlan) -> tuple[tuple[Series, ...], dict[str, str]]:
    """Those of one step where the plan wants callgrind to count them, or why there are none."""
    if plan.instructions != "callgrind":
        return (), {}
    counted = by_callgrind(job)
    return ((), {"instructions": counted}) if isinstance(counted, str) else ((counted,), {})


def by_callgrind(job: Job) -> Series | str:
    """Instructions of one step of a job's case under valgrind, or why there are none."""
    request = job.request
    name = request.case.id
    file = Path(request.folder) / f"{short_hash(name)}.request"
    file.write_bytes(pickle.dumps(request))
    environment = job.source.environment(job.layout.environment())
    command = (job.source.interpreter, "-P", "-m", "leanmark.worker.counted", str(file))
    try:
        total = callgrind.command_instructions(command, STEPS, TIMEOUT_S, environment, job.source.folder)
    except LeanmarkError as error:
        return str(error)
    return _series("instructions", round(total / STEPS), "callgrind")


def _series(metric: str, value: int, meter: str) -> Series:
    block = Block(process=0, round=0, order=0, loops=1, start_s=0.0, value=float(value))
    return Series(metric=metric, meter=meter, blocks=(block,))
