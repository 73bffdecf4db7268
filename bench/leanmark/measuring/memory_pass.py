"""The memory pass: fresh interpreters that do nothing but run one case.

Spawned, not forked: a fork inherits its parent's pages, and they would be counted. Nothing is timed, so
as many run side by side as there are cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from leanmark.errors import LeanmarkError
from leanmark.measuring.launcher import Launcher, Worker
from leanmark.protocol import messages
from leanmark.protocol.layout import Layout
from leanmark.record import Block, Measurement, Series


@dataclass(frozen=True, slots=True)
class Job:
    """One process to start, in this layout, and what to ask it."""

    layout: Layout
    request: messages.PeakMemory


def measure(
    jobs: Sequence[Job], side_by_side: int, launcher: Launcher, timeout_s: float
) -> Iterator[messages.MemoryReading | LeanmarkError]:
    """The reading of each job, or what went wrong in it, in their order."""
    for start in range(0, len(jobs), side_by_side):
        group = jobs[start : start + side_by_side]
        workers = [launcher.spawn(job.layout) for job in group]
        try:
            for worker, job in zip(workers, group, strict=True):
                worker.tell(job.request)
            for worker in workers:
                yield _answer(worker, timeout_s)
        finally:
            for worker in workers:
                worker.close()


def _answer(worker: Worker, timeout_s: float) -> messages.MemoryReading | LeanmarkError:
    try:
        reading: messages.MemoryReading = worker.answer(timeout_s)
    except LeanmarkError as error:
        return error
    return reading


def record(
    run: str, work: str, request: messages.PeakMemory, readings: Sequence[messages.MemoryReading]
) -> Measurement:
    """Working memory is what the model and its steps add to the imported backend."""
    columns = {
        "peak_memory_bytes": [reading.peak_bytes for reading in readings],
        "import_memory_bytes": [reading.import_bytes for reading in readings],
        "loaded_memory_bytes": [reading.loaded_bytes for reading in readings],
        "working_memory_bytes": [reading.peak_bytes - reading.import_bytes for reading in readings],
        **{f"{part}_bytes": [reading.parts[part] for reading in readings] for part in readings[0].parts},
    }
    return Measurement(
        run=run,
        case=request.case,
        pass_name="memory",
        status="ok",
        work=work,
        series=tuple(_series(metric, values, request.steps) for metric, values in columns.items()),
    )


def _series(metric: str, values: Sequence[int], steps: int) -> Series:
    blocks = tuple(
        Block(process=process, round=0, order=0, loops=steps, start_s=0.0, value=float(value))
        for process, value in enumerate(values)
    )
    return Series(metric=metric, meter="host_memory", blocks=blocks)
