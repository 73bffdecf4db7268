"""The one interface of a meter. A meter never synchronises a device: the runner does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Generic, Literal, TypeVar

from leanmark.record import Provenance

Token = TypeVar("Token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """``value`` is in the unit of the meter; ``duration_s`` is the window it covers."""

    value: float
    duration_s: float


class Meter(ABC, Generic[Token]):
    """``start()`` gives a token, ``stop(token)`` the reading since then.

    ``resolution`` is the smallest difference it can see, in its unit; ``min_window_s`` the shortest
    window it is honest for.
    """

    unit: ClassVar[str]
    scope: ClassVar[Literal["process", "machine", "device"]]
    provenance: ClassVar[Provenance]
    resolution: ClassVar[float]
    min_window_s: ClassVar[float]

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this meter cannot be read here, or ``None``."""

    @abstractmethod
    def start(self) -> Token: ...

    @abstractmethod
    def stop(self, token: Token) -> Reading: ...
