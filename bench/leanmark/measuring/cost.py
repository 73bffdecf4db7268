"""What applying a technique costs, once: its time from the worker, its energy from between two notices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from leanmark.errors import MeterError
from leanmark.meters.base import Meter, Reading
from leanmark.protocol.messages import Notice, Ready
from leanmark.record import DOMAIN_LOST, Cost, Finding, Provenance, left_out


class Timed(Protocol):
    """A worker's reply to what it told the beginning and the end of."""

    @property
    def time_s(self) -> float: ...

    @property
    def epochs(self) -> int | None: ...

    @property
    def steps(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """``joules`` with the half-width that the meter states, without the ``gain`` of its sensor."""

    joules: float
    doubt_j: float | None
    gain: float | None
    meter: str
    scope: Literal["process", "machine", "device"]
    provenance: Provenance
    findings: tuple[Finding, ...] = ()

    def doubts(self, what: str) -> tuple[Finding, ...]:
        """About ``what`` these joules are of, in words that are the same for every time."""
        return tuple(
            Finding(
                code=DOMAIN_LOST,
                message=f"the energy of {what} is without {part}, whose counter told nothing in that time",
                without=part,
            )
            for part in left_out(self.findings)
        )

    @property
    def absolute_doubt_j(self) -> float | None:
        """An absolute number carries the gain of the sensor too."""
        return None if self.doubt_j is None else math.hypot(self.doubt_j, (self.gain or 0.0) * self.joules)


class CostMeter:
    """Give ``notice`` to the worker that prepares; use as a context manager, which stops the meter.

    What goes wrong with the meter is the reason why there is no energy, and nobody else's fault.
    """

    def __init__(self, meter: Meter[Any] | None) -> None:
        self._meter = meter
        self._token: Any = None
        self._running = False
        self._readings: dict[str | None, Reading] = {}
        self._reasons: dict[str | None, str] = {}
        self._usual = "no meter of energy is available" if meter is None else "nothing was applied"

    def __enter__(self) -> CostMeter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._running and self._meter is not None:  # the worker died between its notices
            self._running = False
            self._meter.stop(self._token)

    def notice(self, notice: Notice) -> None:
        if self._meter is None:
            return
        try:
            if notice.what == "begins":
                self._token, self._running = self._meter.start(), True
            elif self._running:
                self._running = False
                self._readings[notice.backend] = self._meter.stop(self._token)()
        except MeterError as error:
            self._reasons[notice.backend] = str(error)

    @property
    def reason(self) -> str | None:
        """Why there is no energy of applying, ``None`` where there is."""
        return None if None in self._readings else self._reasons.get(None, self._usual)

    def energy(self, time_s: float, backend: str | None = None) -> Metered | None:
        """Of the ``time_s`` between two notices. A meter that aligns to updates covers less than that, so it
        is its power that counts."""
        reading, meter = self._readings.get(backend), self._meter
        if reading is None or meter is None:
            return None
        scale = time_s / reading.duration_s
        return Metered(
            joules=reading.value * scale,
            doubt_j=None if reading.uncertainty is None else reading.uncertainty * scale,
            gain=reading.evidence.gain if reading.evidence else None,
            meter=type(meter).__name__.lower(),
            scope=meter.scope,
            provenance=meter.provenance,
            findings=reading.findings,
        )

    def cost(self, ready: Timed) -> Cost:
        """Of applying alone."""
        found = self.energy(ready.time_s)
        if found is None:
            return Cost(
                time_s=ready.time_s, epochs=ready.epochs, steps=ready.steps, energy_reason=self.reason
            )
        return Cost(
            time_s=ready.time_s,
            epochs=ready.epochs,
            steps=ready.steps,
            energy_j=found.joules,
            energy_provenance=found.provenance,
            energy_uncertainty_j=found.absolute_doubt_j,
        )

    def doubts(self, ready: Timed) -> tuple[Finding, ...]:
        """About the energy of applying."""
        found = self.energy(ready.time_s)
        return found.doubts("making it") if found else ()

    def costs(self, ready: Ready) -> dict[str, Cost]:
        """For each backend, with what building for it took."""
        applied = self.cost(ready)
        return {backend: self._built(applied, backend, ready.build_s.get(backend)) for backend in ready.model}

    def _built(self, applied: Cost, backend: str, build_s: float | None) -> Cost:
        if build_s is None:
            return applied
        found = self.energy(build_s, backend)
        return replace(
            applied,
            build_s=build_s,
            build_j=found.joules if found else None,
            build_uncertainty_j=found.absolute_doubt_j if found else None,
        )
