"""What happens around the rounds of a contest: on the cores of the variants, and on their GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from leanmark.devices.gpu_probe import GpuProbe
from leanmark.machine import disturbance
from leanmark.machine.disturbance import RoundSample
from leanmark.machine.gpu_disturbance import GpuSample, gpu_flags, power_capped
from leanmark.machine.probes import RoundProbe
from leanmark.record import Finding


@dataclass(frozen=True, slots=True)
class Seen:
    """``gpu`` is ``None`` where nothing runs on one."""

    machine: RoundSample
    gpu: GpuSample | None = None

    @property
    def temperature_c(self) -> float | None:
        """Of what does the work."""
        return self.gpu.gpu_temperature_c if self.gpu else self.machine.temperature_c

    @property
    def clock_hz(self) -> float | None:
        """Of the GPU; that of a core is read around each block."""
        return self.gpu.gpu_clock_hz if self.gpu else None

    @property
    def unobserved(self) -> tuple[str, ...]:
        return disturbance.unobserved(self.machine, *([self.gpu] if self.gpu else []))


class Watch:
    """Reads before the first and after each round. Use as a context manager."""

    def __init__(self, cores: Sequence[int], gpu: str = "") -> None:
        self._machine = RoundProbe(cores)
        self._gpu = GpuProbe(gpu) if gpu else None
        self._capped = self._rounds = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._machine.close()
        if self._gpu is not None:
            self._gpu.close()

    def look(self) -> Seen:
        return Seen(self._machine.read(), self._gpu.read() if self._gpu else None)

    def flags(self, before: Seen, after: Seen) -> tuple[str, ...]:
        """What made the round between two looks a bad one."""
        found = disturbance.round_flags(before.machine, after.machine)
        if before.gpu is None or after.gpu is None:
            return found
        self._rounds += 1
        self._capped += power_capped(before.gpu, after.gpu)
        return (*found, *gpu_flags(before.gpu, after.gpu))

    def findings(self) -> tuple[Finding, ...]:
        """What is no fault of a round, and yet bears on its times."""
        if not self._capped:
            return ()
        message = f"the GPU was at its power limit in {self._capped} of {self._rounds} rounds"
        return (Finding(code="power-capped", message=message),)
