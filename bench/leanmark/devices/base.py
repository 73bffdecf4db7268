"""The one interface of a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping


class Device(ABC):
    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this device cannot be used here, or ``None``."""

    @abstractmethod
    def describe(self) -> Mapping[str, str | int | float | None]:
        """Facts that identify it."""
