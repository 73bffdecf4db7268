"""The energy counter of an NVIDIA GPU, read from update to update."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.meters.edges import EdgeFinder
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_power import NvmlPower
from leanmark.meters.ticker import Repeat, Stop, Ticker
from leanmark.meters.window import Sleep, update_period
from leanmark.record import Provenance

GAIN = 0.10
"""Against an external meter: 5 % on datacentre boards, up to 10 % on others. Yang et al., SC 2024."""

_USUAL_PERIOD_S = 0.1
_FEWEST_UPDATES = 10
_JOULES_PER_COUNT = 1e-3


@dataclass(frozen=True, slots=True)
class OpenWindow:
    finder: EdgeFinder
    stop_looking: Stop


class NvmlEnergy(Meter[OpenWindow]):
    """Energy of one board, in joules (Volta and newer).

    The reading covers the time between the first and the last update inside the window, so the work must
    run from start to stop. How often the counter is updated is found when the meter is first used.
    """

    unit = "j"
    scope = "device"
    provenance = Provenance.MEASURED_COUNTER
    covers = "gpu"
    resolution = _JOULES_PER_COUNT

    def __init__(
        self,
        gpu: Gpu | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Sleep = time.sleep,
        repeat: Repeat | None = None,
    ) -> None:
        self.min_window_s = _FEWEST_UPDATES * _USUAL_PERIOD_S
        self._gpu = gpu or Gpu()
        self._clock = clock
        self._sleep = sleep
        self._ticker = Ticker()
        self._repeat = repeat or self._ticker.repeat
        self._period_s: float | None = None

    def unavailable(self) -> str | None:
        try:
            self._gpu.open()
            self._gpu.energy_mj()
        except MeterError as error:
            return str(error)
        return None

    def start(self) -> OpenWindow:
        period_s = self._probed()
        finder = EdgeFinder(self._gpu.label, self._gpu.energy_mj, self._clock, period_s)
        return OpenWindow(finder, self._repeat(finder.act, 0.0))

    def stop(self, token: OpenWindow) -> Stopped:
        token.stop_looking()
        return partial(self._reading, token.finder, self._clock())

    def _reading(self, finder: EdgeFinder, stop_s: float) -> Reading:
        first, last = finder.finish(stop_s)
        joules = (last.count - first.count) * _JOULES_PER_COUNT
        duration_s = last.middle - first.middle
        return Reading(
            value=joules,
            duration_s=duration_s,
            uncertainty=joules / duration_s * (first.doubt + last.doubt) + _JOULES_PER_COUNT,
            evidence=Evidence(
                source="nvml.total_energy",
                distinct=finder.distinct,
                update_period_s=self._period_s,
                aligned=True,
                gain=GAIN,
                parts={self._gpu.label: joules},
            ),
            findings=self._gpu.findings(),
        )

    def temperature_c(self) -> float | None:
        self._gpu.open()
        return self._gpu.temperature_c()

    def second_opinion(self) -> NvmlPower:
        return NvmlPower(self._gpu, like_counter=True, clock=self._clock, repeat=self._repeat)

    def close(self) -> None:
        self._ticker.close()
        self._gpu.close()

    def _probed(self) -> float:
        self._gpu.open()
        if self._period_s is None:
            try:
                self._period_s = update_period(self._gpu.energy_mj, self._clock, self._sleep)
            except StuckCounter as error:
                raise StuckCounter(f"{self._gpu.label}: its energy counter is stuck: {error}") from error
            self.min_window_s = max(1.0, _FEWEST_UPDATES * self._period_s)
        return self._period_s
