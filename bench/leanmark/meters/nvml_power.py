"""Sampled power of an NVIDIA GPU, integrated: for boards without an energy counter, and to check one.

Two sensors, with two weaknesses. The "instantaneous" one sees only the last 25 ms of each 100 ms on A100
and H100, and 10 ms of 20 ms on older boards, so a load that repeats with that period can be wrong by 60 %
without a sign of it: what was not seen can lie anywhere between nothing and the power limit, and the
uncertainty says so, taking the 10 ms for every board. The averaged one
(not on the A100) sees all of the time, smeared over a second: the uncertainty is what that second can hide
at the two ends. (Yang, Adamek and Armour, SC 2024.) The reading is that of the sensor with less of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

from leanmark.errors import MeterError
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.meters.nvml import Gpu
from leanmark.meters.ticker import Repeat, Stop, Ticker
from leanmark.record import Provenance

GAIN = 0.10
RATE_HZ = 10.0
"""As often as the sensors update; more would cost more of a core and see nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """A reading is the mean over ``averaged_s``, published every ``update_s``.

    What was before the window is out of it after ``settle_s``.
    """

    source: str
    update_s: float
    averaged_s: float
    settle_s: float


AVERAGE = Sensor(source="nvml.power_average", update_s=0.1, averaged_s=1.0, settle_s=1.5)
INSTANT = Sensor(source="nvml.power_instant", update_s=0.1, averaged_s=0.01, settle_s=0.125)
_FIELDS = (185, 186)  # NVML_FI_DEV_POWER_AVERAGE, NVML_FI_DEV_POWER_INSTANT

Samples = Sequence[tuple[float, float]]
"""Times in seconds and watts."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean power over a window and the half-width that holds the truth, in watts; ``inf`` if unknown."""

    watts: float
    doubt_w: float
    sensor: Sensor


def from_instant(samples: Samples, start_s: float, stop_s: float, limit_w: float | None) -> Estimate | None:
    """``None`` where the window is too short for two samples after settling."""
    kept = _settled(samples, start_s, INSTANT)
    if len(kept) < 2:
        return None
    watts, covered_s = _trapezoid(kept)
    window_s = stop_s - start_s
    seen = INSTANT.averaged_s / INSTANT.update_s * covered_s / window_s
    ends = 3 * INSTANT.update_s / window_s  # the first and the last reading, and one missed or met twice
    doubt_w = math.inf
    if limit_w is not None:
        doubt_w = min(1.0, 1 - seen + ends) * max(watts, limit_w - watts)
    return Estimate(watts, doubt_w, INSTANT)


def from_average(samples: Samples, instant: Samples, start_s: float, stop_s: float) -> Estimate | None:
    """``instant`` helps to see how much the power moves. ``None`` where the window is too short."""
    kept = _settled(samples, start_s, AVERAGE)
    if len(kept) < 2:
        return None
    watts, _ = _trapezoid(kept)
    seen = [w for _, w in kept] + [w for _, w in _settled(instant, start_s, INSTANT)]
    swing_w = max(seen) - min(seen)
    window_s = stop_s - start_s
    doubt_w = (AVERAGE.settle_s * swing_w + AVERAGE.update_s * max(seen)) / window_s
    return Estimate(watts, doubt_w, AVERAGE)


def _settled(samples: Samples, start_s: float, sensor: Sensor) -> list[tuple[float, float]]:
    return [sample for sample in samples if sample[0] >= start_s + sensor.settle_s]


def _trapezoid(samples: Samples) -> tuple[float, float]:
    """The mean power and the time it is the mean of."""
    covered_s = samples[-1][0] - samples[0][0]
    joules = sum((after[0] - before[0]) * (before[1] + after[1]) / 2 for before, after in pairwise(samples))
    return joules / covered_s, covered_s


@dataclass(slots=True)
class _Window:
    """The samples so far; what goes wrong on the way is told at the end."""

    gpu: Gpu
    clock: Callable[[], float]
    period_s: float
    start_s: float
    module: bool
    average: list[tuple[float, float]] = field(default_factory=list)
    instant: list[tuple[float, float]] = field(default_factory=list)
    failed: MeterError | None = None

    def act(self) -> float:
        if self.failed is None:
            try:
                readings = self.gpu.watts(_FIELDS, module=self.module)
            except MeterError as error:
                self.failed = error
                return self.period_s
            now_s = self.clock()
            for samples, watts in zip((self.average, self.instant), readings, strict=True):
                if watts is not None:
                    samples.append((now_s, watts))
        return self.period_s


@dataclass(frozen=True, slots=True)
class OpenWindow:
    window: _Window
    stop_sampling: Stop


class NvmlPower(Meter[OpenWindow]):
    """Energy of one board from its power, sampled at ``RATE_HZ``, in joules.

    ``like_counter`` is for checking the energy counter: on a board that shares a module with a processor it
    counts that module, beside which the power of the GPU would always be less.
    """

    unit = "j"
    scope = "device"
    provenance = Provenance.SAMPLED_POWER
    covers = "gpu"
    resolution = 0.0
    min_window_s = 10.0

    def __init__(
        self,
        gpu: Gpu | None = None,
        *,
        like_counter: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        repeat: Repeat | None = None,
    ) -> None:
        self._gpu = gpu or Gpu()
        self._period_s = 1 / RATE_HZ
        self._like_counter = like_counter
        self._clock = clock
        self._ticker = Ticker()
        self._repeat = repeat or self._ticker.repeat

    def unavailable(self) -> str | None:
        try:
            self._gpu.open()
            if all(watts is None for watts in self._gpu.watts(_FIELDS, module=self._module())):
                return f"{self._gpu.label}: its power cannot be read (fields {_FIELDS} are not supported)"
        except MeterError as error:
            return str(error)
        return None

    def start(self) -> OpenWindow:
        self._gpu.open()
        window = _Window(self._gpu, self._clock, self._period_s, self._clock(), self._module())
        return OpenWindow(window, self._repeat(window.act, self._period_s))

    def stop(self, token: OpenWindow) -> Stopped:
        token.stop_sampling()
        return partial(self._reading, token.window, self._clock())

    def _reading(self, window: _Window, stop_s: float) -> Reading:
        if window.failed is not None:
            raise window.failed
        best = self._best(window, stop_s)
        duration_s = stop_s - window.start_s
        samples = window.average if best.sensor is AVERAGE else window.instant
        return Reading(
            value=best.watts * duration_s,
            duration_s=duration_s,
            uncertainty=best.doubt_w * duration_s if math.isfinite(best.doubt_w) else None,
            evidence=Evidence(
                source=best.sensor.source,
                distinct=len({watts for _, watts in samples}),
                samples=len(samples),
                update_period_s=best.sensor.update_s,
                gain=GAIN,
                parts={self._gpu.label: best.watts * duration_s},
            ),
            findings=self._gpu.findings(),
        )

    def temperature_c(self) -> float | None:
        self._gpu.open()
        return self._gpu.temperature_c()

    def close(self) -> None:
        self._ticker.close()
        self._gpu.close()

    def _module(self) -> bool:
        return self._like_counter and self._gpu.counts_module

    def _best(self, window: _Window, stop_s: float) -> Estimate:
        estimates = [
            from_average(window.average, window.instant, window.start_s, stop_s),
            from_instant(window.instant, window.start_s, stop_s, self._gpu.limit_w()),
        ]
        usable = [estimate for estimate in estimates if estimate is not None]
        if not usable:
            raise MeterError(
                f"{self._gpu.label}: {stop_s - window.start_s:.3g} s hold fewer than two samples of its power"
            )
        best = min(usable, key=lambda estimate: estimate.doubt_w)
        if best.watts <= 0:
            raise MeterError(f"{self._gpu.label}: its power sensor shows {best.watts:.3g} W")
        return best
