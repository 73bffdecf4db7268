"""The one interface of a device: what the parent knows of it, and what a worker does with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

Step = Callable[[], object]


class Accelerator:
    """What a worker asks of the device it steps on. As it stands: a processor, which is never behind.

    ``name`` is the device in torch's words; ``queues`` is whether work is done later than asked for.
    """

    name = "cpu"
    queues = False

    def synchronize(self) -> None:
        """Return when all that was asked of the device is done."""

    def busy_s(self, step: Step, times: int, host_s: float) -> float | None:
        """Seconds that one of up to ``times`` steps takes the device itself, launches left out.

        ``host_s`` is about what the host needs to ask for one. ``None`` where host and device are one.
        """
        return None

    def flush_cache(self) -> None:
        """Have nothing of use left in the device's cache."""

    def release(self) -> None:
        """Give back memory that is kept for later, where it is much: others take their turn."""

    def start_memory(self) -> None:
        """Peaks of memory count from here."""

    def memory(self) -> Mapping[str, int]:
        """Bytes since ``start_memory`` by metric of the record; empty where only the host has memory."""
        return {}

    def capture(self, step: Step) -> Step:
        """``step`` as a recording that is replayed in one launch.

        Raises:
            Unsupported: this device records nothing, or this step cannot be recorded.
        """
        from leanmark.errors import Unsupported

        raise Unsupported("CUDA graphs record work on NVIDIA GPUs only")

    def facts(self) -> Mapping[str, str]:
        """What identifies the device that really ran."""
        return {}


class Device(ABC):
    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this device cannot be used here, or ``None``."""

    @abstractmethod
    def describe(self) -> Mapping[str, str | int | float | None]:
        """Facts that identify it."""

    def accelerator(self) -> Accelerator:
        """What a worker steps on. May import torch and start the device."""
        return Accelerator()
