"""What applying a technique costs, once: its time from the worker, its energy from between two notices."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from leanmark.errors import MeterError
from leanmark.meters.base import Meter, Reading
from leanmark.protocol.messages import Notice, Ready
from leanmark.record import Cost


class CostMeter:
    """Give ``notice`` to the worker that prepares; use as a context manager, which stops the meter.

    What goes wrong with the meter is the reason why there is no energy, and nobody else's fault.
    """

    def __init__(self, meter: Meter[Any] | None) -> None:
        self._meter = meter
        self._token: Any = None
        self._running = False
        self._reading: Reading | None = None
        self._reason = "no meter of energy is available" if meter is None else "nothing was applied"

    def __enter__(self) -> CostMeter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running and self._meter is not None:  # the worker died between its notices
            self._running = False
            with contextlib.suppress(MeterError):
                self._meter.stop(self._token)

    def notice(self, notice: Notice) -> None:
        if self._meter is None:
            return
        try:
            if notice.what == "begins":
                self._token, self._running = self._meter.start(), True
            elif self._running:
                self._running = False
                self._reading = self._meter.stop(self._token)
        except MeterError as error:
            self._reason = str(error)

    def cost(self, ready: Ready) -> Cost:
        """A meter that aligns to updates covers less than the time, so it is its power that counts."""
        cost = Cost(time_s=ready.time_s, epochs=ready.epochs, steps=ready.steps, energy_reason=self._reason)
        reading, meter = self._reading, self._meter
        if reading is None or meter is None:
            return cost
        scale = ready.time_s / reading.duration_s
        joules = reading.value * scale
        return Cost(
            time_s=ready.time_s,
            epochs=ready.epochs,
            steps=ready.steps,
            energy_j=joules,
            energy_provenance=meter.provenance,
            energy_uncertainty_j=_doubt_j(reading, joules, scale),
        )


def _doubt_j(reading: Reading, joules: float, scale: float) -> float | None:
    """An absolute number carries the gain of the sensor too."""
    if reading.uncertainty is None:
        return None
    gain = reading.evidence.gain if reading.evidence and reading.evidence.gain else 0.0
    return math.hypot(reading.uncertainty * scale, gain * joules)
