"""The memory pass: fresh interpreters that do nothing but run one case.

Spawned, not forked: a fork inherits its parent's pages, and they would be counted. Nothing is timed, so
as many run side by side as there are cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from leanmark import registry
from leanmark.backends.base import Backend
from leanmark.errors import LeanmarkError
from leanmark.measuring.launcher import Launcher, Worker
from leanmark.measuring.source import HERE, Source
from leanmark.protocol import messages
from leanmark.protocol.layout import Layout
from leanmark.record import Block, Case, Finding, Measurement, Series

_UNTOLD = Finding(
    code="no-gpu-memory",
    message="no working memory: this backend does not say what it takes of the GPU's",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One process to start, in this layout, what to ask it, and whose code it runs."""

    layout: Layout
    request: messages.PeakMemory
    source: Source = HERE


def measure(
    jobs: Sequence[Job], side_by_side: int, launcher: Launcher, timeout_s: float
) -> Iterator[messages.MemoryReading | LeanmarkError]:
    """The reading of each job, or what went wrong in it, in their order."""
    for start in range(0, len(jobs), side_by_side):
        group = jobs[start : start + side_by_side]
        workers = [launcher.spawn(job.layout, imports(job.request.case), job.source) for job in group]
        try:
            for worker, job in zip(workers, group, strict=True):
                worker.tell(job.request)
            for worker in workers:
                yield _answer(worker, timeout_s)
        finally:
            for worker in workers:
                worker.close()


def imports(case: Case) -> tuple[str, ...]:
    """What a script that only runs this case would import."""
    backend: Backend = registry.load("backends", case.backend)()
    return (*backend.runtime_modules(case.phase), "zipfile")  # numpy reads its inputs with it


def _answer(worker: Worker, timeout_s: float) -> messages.MemoryReading | LeanmarkError:
    try:
        reading: messages.MemoryReading = worker.answer(timeout_s)
    except LeanmarkError as error:
        return error
    return reading


def record(
    run: str,
    work: str,
    request: messages.PeakMemory,
    readings: Sequence[messages.MemoryReading],
    counts: Sequence[Series] = (),
    not_counted: Mapping[str, str] = MappingProxyType({}),
) -> Measurement:
    """Working memory is what the model and its steps add to the imported backend; on a GPU, the peak that
    its allocator gave them there, or nothing where it does not say: the host's is no stand-in for it. What
    leanmark takes of the host's is in none of the figures but its own.

    ``counts`` are what was counted of its steps beside, and ``not_counted`` says what could not be.
    """
    told = request.case.device == "cpu" or bool(readings[0].device)
    columns = {
        "peak_memory_bytes": [reading.peak_bytes for reading in readings],
        "import_memory_bytes": [reading.import_bytes for reading in readings],
        "loaded_memory_bytes": [reading.loaded_bytes for reading in readings],
        **({"working_memory_bytes": [_working(reading) for reading in readings]} if told else {}),
        **{metric: [reading.host[metric] for reading in readings] for metric in readings[0].host},
        **{f"{part}_bytes": [reading.parts[part] for reading in readings] for part in readings[0].parts},
        **{metric: [reading.device[metric] for reading in readings] for metric in readings[0].device},
    }
    on_gpu = {*readings[0].device, "working_memory_bytes"} if readings[0].device else set()
    return Measurement(
        run=run,
        case=request.case,
        pass_name="memory",
        status="ok",
        work=work,
        series=(
            *(
                _series(metric, values, request.steps, "torch_cuda" if metric in on_gpu else "host_memory")
                for metric, values in columns.items()
            ),
            *counts,
        ),
        findings=() if told else (_UNTOLD,),
        executed={"not_counted": dict(not_counted)},
    )


def _working(reading: messages.MemoryReading) -> int:
    return reading.device.get("gpu_peak_memory_bytes", reading.peak_bytes - reading.import_bytes)


def _series(metric: str, values: Sequence[int], steps: int, meter: str) -> Series:
    blocks = tuple(
        Block(process=process, round=0, order=0, loops=steps, start_s=0.0, value=float(value))
        for process, value in enumerate(values)
    )
    return Series(
        metric=metric,
        meter=meter,
        scope="device" if metric == "gpu_board_memory_bytes" else "process",
        blocks=blocks,
    )
