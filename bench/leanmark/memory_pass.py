"""The memory pass: fresh interpreters that do nothing but run one case.

Spawned, not forked: a fork inherits its parent's pages, and they would be counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from leanmark import messages
from leanmark.launcher import Launcher
from leanmark.record import Block, Measurement, Series
from leanmark.schedule import Replica


def measure(
    request: messages.PeakMemory,
    replicas: Sequence[Replica],
    launcher: Launcher,
    timeout_s: float,
) -> tuple[messages.MemoryReading, ...]:
    """One reading per replica.

    Raises:
        LeanmarkError: what went wrong in the worker.
    """
    readings = []
    for replica in replicas:
        worker = launcher.spawn(replica.layout)
        try:
            readings.append(worker.ask(request, timeout_s))
        finally:
            worker.close()
    return tuple(readings)


def record(
    run: str, work: str, request: messages.PeakMemory, readings: Sequence[messages.MemoryReading]
) -> Measurement:
    """Working memory is what the model and its steps add to the imported backend."""
    columns = {
        "peak_memory_bytes": [reading.peak_bytes for reading in readings],
        "import_memory_bytes": [reading.import_bytes for reading in readings],
        "loaded_memory_bytes": [reading.loaded_bytes for reading in readings],
        "working_memory_bytes": [reading.peak_bytes - reading.import_bytes for reading in readings],
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
