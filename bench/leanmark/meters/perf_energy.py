"""RAPL through the kernel's performance events: for machines where powercap is closed to users.

The kernel follows the registers itself, so these counters of 64 bits do not wrap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from leanmark.errors import MeterError
from leanmark.meters.perf_event import PerfEvent
from leanmark.meters.processor import Domain, Kind, ProcessorEnergy
from leanmark.meters.ticker import Repeat

DEVICE = Path("/sys/bus/event_source/devices/power")

_EVENTS: dict[str, Kind] = {"energy-pkg": "package", "energy-ram": "dram", "energy-psys": "psys"}
_GRANT = "to grant it until the next boot: sudo sysctl kernel.perf_event_paranoid=0"


class Event(Protocol):
    def read(self) -> int: ...

    def close(self) -> None: ...


Open = Callable[[int, int, int], Event]
"""Type of the device, number of the event, CPU."""


class PerfEnergy(ProcessorEnergy):
    """Energy of packages and memory from ``power/energy-pkg/`` and its like, in joules."""

    source = "perf"
    since_boot = False

    def __init__(
        self,
        device: Path = DEVICE,
        *,
        open_event: Open = PerfEvent,
        clock: Callable[[], float] = time.perf_counter,
        repeat: Repeat | None = None,
    ) -> None:
        super().__init__(clock, repeat)
        self._device = device
        self._open_event = open_event

    def find_domains(self) -> tuple[Domain, ...]:
        if not (self._device / "events" / "energy-pkg").exists():
            raise MeterError(f"{self._device} has no event energy-pkg (usual in virtual machines)")
        try:
            return tuple(self._opened())
        except (OSError, ValueError) as error:
            hint = f"; {_GRANT}" if isinstance(error, PermissionError) else ""
            raise MeterError(f"the events of {self._device} cannot be opened: {error}{hint}") from error

    def _opened(self) -> list[Domain]:
        """One domain for each event and package."""
        kind_of_device = int(self._text("type"))
        cpus = _cpus(self._text("cpumask"))
        domains = []
        for name, kind in _EVENTS.items():
            if not (self._device / "events" / name).exists():
                continue
            number = int(self._text(f"events/{name}").removeprefix("event="), 0)
            unit_j = float(self._text(f"events/{name}.scale"))
            for index, cpu in enumerate(cpus[:1] if kind == "psys" else cpus):
                event = self._open_event(kind_of_device, number, cpu)
                self.held.append(event)
                domains.append(
                    Domain(
                        name=_name(kind, index),
                        kind=kind,
                        unit_j=unit_j,
                        span=None,
                        show=event.read,
                        failure=partial(_unreadable, name, cpu),
                        required=kind == "package",
                    )
                )
        return domains

    def _text(self, name: str) -> str:
        return (self._device / name).read_text().strip()


def _cpus(mask: str) -> list[int]:
    """The CPUs of a list such as ``0,64`` or ``0-1``: one for each package."""
    found: list[int] = []
    for part in mask.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _name(kind: Kind, index: int) -> str:
    return {"package": f"package-{index}", "dram": f"package-{index}/dram", "psys": "psys"}[kind]


def _unreadable(name: str, cpu: int, error: OSError) -> MeterError:
    return MeterError(f"power/{name}/ on CPU {cpu} cannot be read: {error}")
