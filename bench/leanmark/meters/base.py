"""The one interface of a meter. A meter never synchronises a device: the runner does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, TypeVar

from leanmark.record import Finding, Provenance

Token = TypeVar("Token")

Component = Literal["processor", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a reading of energy stands on.

    ``source`` names the counter or sensor. ``distinct`` counts the different values of it that were seen
    (of the least lively one where several are summed), ``wraps`` how often it overflowed, ``samples`` the
    readings of a power sensor. ``parts`` are the joules by domain, which sum to the value; ``beside`` are
    domains that contain others and are in no sum. ``gain`` is the relative error of the sensor itself: it
    cancels in a ratio on one device, and in nothing else.
    """

    source: str
    distinct: int = 0
    wraps: int = 0
    samples: int = 0
    update_period_s: float | None = None
    aligned: bool = False
    gain: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """``value`` is in the unit of the meter; ``duration_s`` is the window it covers.

    That window may be shorter than the one asked for: a meter that aligns to the updates of its counter
    covers what lies between two of them. ``uncertainty`` is a half-width in the unit of the meter, from
    quantisation and sampling, without the gain of the sensor; ``None`` where it is not known.
    """

    value: float
    duration_s: float
    uncertainty: float | None = None
    evidence: Evidence | None = None
    findings: tuple[Finding, ...] = ()


Stopped = Callable[[], Reading]
"""What a meter saw from start to stop: called, soon after, it works the reading out of that.

Raises:
    MeterError: there is no honest reading.
"""


class Meter(ABC, Generic[Token]):
    """``start()`` gives a token, ``stop(token)`` what gives the reading since then.

    Between the two something else is measured too: so ``stop`` takes a last look and works nothing out.

    ``resolution`` is the smallest difference it can see, in its unit; ``min_window_s`` the shortest
    window it is honest for. ``covers`` is what a meter of energy covers, ``None`` for every other meter.
    Starting raises ``MeterError`` where there will be no honest reading.
    """

    unit: ClassVar[str]
    scope: ClassVar[Literal["process", "machine", "device"]]
    provenance: ClassVar[Provenance]
    covers: ClassVar[Component | None] = None
    resolution: float
    min_window_s: float
    passed_over: Mapping[str, str] = MappingProxyType({})
    """Why the better meters of the same thing could not be read, by name."""

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this meter cannot be read here, or ``None``."""

    @abstractmethod
    def start(self) -> Token: ...

    @abstractmethod
    def stop(self, token: Token) -> Stopped: ...

    def temperature_c(self) -> float | None:
        """Of the device that the energy is of, ``None`` where the meter cannot tell."""
        return None

    def second_opinion(self) -> Meter[Any] | None:
        """Another sensor of the same device that this one can be checked against."""
        return None

    def close(self) -> None:
        """End threads, close files. The meter can be started again."""
