"""A device like ``/sys/bus/event_source/devices/power`` whose events follow a clock."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leanmark.testing.power import Power, energy_j

_UNIT_J = 2.0**-32
_UPDATE_S = 1e-3
_NUMBERS = {"energy-pkg": 2, "energy-ram": 3, "energy-psys": 5}


@dataclass(slots=True)
class FakeEvent:
    """Counts what ``power`` draws from when it was opened."""

    power: Power
    opened_s: float
    clock: Callable[[], float]
    closed: bool = False
    lost: bool = False

    def read(self) -> int:
        if self.lost:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        published_s = max(self.opened_s, self.clock() // _UPDATE_S * _UPDATE_S)
        return round(energy_j(self.power, self.opened_s, published_s) / _UNIT_J)

    def close(self) -> None:
        self.closed = True


class FakePerf:
    """``powers`` gives for each event, such as ``energy-pkg``, the power of each package.

    Give ``folder`` as the device and ``open`` as the opener. ``allowed`` false is a kernel that refuses.
    """

    def __init__(
        self,
        folder: Path,
        powers: Mapping[str, Sequence[Power]],
        clock: Callable[[], float],
    ) -> None:
        self.folder = folder
        self.allowed = True
        self.events: list[FakeEvent] = []
        self.powers = powers
        self.clock = clock
        (folder / "events").mkdir(parents=True)
        (folder / "type").write_text("18\n")
        packages = len(powers["energy-pkg"])
        (folder / "cpumask").write_text(",".join(str(64 * package) for package in range(packages)) + "\n")
        for name in powers:
            (folder / "events" / name).write_text(f"event=0x{_NUMBERS[name]:02x}\n")
            (folder / "events" / f"{name}.scale").write_text(f"{_UNIT_J!r}\n")
            (folder / "events" / f"{name}.unit").write_text("Joules\n")

    def open(self, kind: int, config: int, cpu: int) -> FakeEvent:
        if not self.allowed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if kind != 18:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        name = next(name for name, number in _NUMBERS.items() if number == config)
        event = FakeEvent(self.powers[name][cpu // 64], self.clock(), self.clock)
        self.events.append(event)
        return event
