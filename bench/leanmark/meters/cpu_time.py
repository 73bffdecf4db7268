"""CPU time."""

from __future__ import annotations

import time
from functools import partial

from leanmark.meters.base import Meter, Reading, Stopped
from leanmark.record import Provenance


class CpuTime(Meter[tuple[float, float]]):
    """User and system time of all threads of this process, in seconds."""

    unit = "s"
    scope = "process"
    provenance = Provenance.MEASURED_COUNTER
    resolution = time.get_clock_info("process_time").resolution
    min_window_s = 1e-3

    def unavailable(self) -> str | None:
        return None

    def start(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def stop(self, token: tuple[float, float]) -> Stopped:
        wall, cpu = token
        return partial(Reading, value=time.process_time() - cpu, duration_s=time.perf_counter() - wall)
