"""Wall time."""

from __future__ import annotations

import time
from functools import partial

from leanmark.meters.base import Meter, Reading, Stopped
from leanmark.record import Provenance


class Wall(Meter[float]):
    """The monotonic clock with the highest resolution, in seconds."""

    unit = "s"
    scope = "machine"
    provenance = Provenance.MEASURED_COUNTER
    resolution = time.get_clock_info("perf_counter").resolution
    min_window_s = 1e-3

    def unavailable(self) -> str | None:
        return None

    def start(self) -> float:
        return time.perf_counter()

    def stop(self, token: float) -> Stopped:
        elapsed = time.perf_counter() - token
        return partial(Reading, value=elapsed, duration_s=elapsed)
