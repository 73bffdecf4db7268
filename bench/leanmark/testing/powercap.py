"""A tree like ``/sys/class/powercap`` whose counters follow a clock, wrap, and fail when told to."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from leanmark.testing.power import Power, energy_j

INTEL_SPAN_UJ = 262_143_328_850
AMD_SPAN_UJ = 65_532_610_987

_WIDTH = 24

Kind = Literal["permission", "missing", "garbage", "empty", "zero", "stuck", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to ``file`` of a zone between two times.

    ``stuck`` and ``reset`` are for ``energy_uj``: it stands still for that time, or starts again from 0.
    """

    kind: Kind
    file: str = "energy_uj"
    start_s: float = 0.0
    stop_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeZone:
    """``folder`` is its name in the tree, such as ``intel-rapl:0:1``; ``name`` what it says of itself.

    Zones with equal ``power`` and ``offset_uj`` mirror one another.
    """

    folder: str
    name: str
    power: Power
    span_uj: int = INTEL_SPAN_UJ
    offset_uj: int = 0
    faults: tuple[Fault, ...] = ()


class FakePowercap:
    """Read it in place of the files, at the clock's time; or ``write()`` it to disk for other tools.

    Counters are published every ``update_s``. ``write`` needs to be called again when time has passed.
    """

    def __init__(
        self, root: Path, zones: Sequence[FakeZone], clock: Callable[[], float], update_s: float = 1e-3
    ) -> None:
        self.root = root
        self.update_s = update_s
        self._clock = clock
        self._zones = {zone.folder: zone for zone in zones}

    def read(self, path: Path) -> str:
        """The text of one file.

        Raises:
            OSError: as the fault says, or for a file that is not in the tree.
        """
        now_s = self._clock()
        zone = self._zones.get(path.parent.name)
        if zone is None or path.name not in ("name", "energy_uj", "max_energy_range_uj"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        for fault in zone.faults:
            if fault.file == path.name and fault.start_s <= now_s < fault.stop_s:
                match fault.kind:
                    case "permission":
                        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                    case "missing":
                        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
                    case "garbage":
                        return "0x?!\n"
                    case "empty":
                        return ""
                    case "zero":
                        return "0\n"
        return f"{self._value(zone, path.name, now_s)}\n"

    def joules(self, folder: str, start_s: float, stop_s: float) -> float:
        """The truth of one zone."""
        return energy_j(self._zones[folder].power, start_s, stop_s)

    def write(self) -> None:
        """Put the tree of this moment on disk, laid out as Linux does: nested folders and flat links.

        Files stay the same and are written in one call each, since a meter may keep them open. A file whose
        fault is to be missing is emptied and removed; other users' permission cannot be faked on disk, so
        that fault is not written.
        """
        for zone in self._zones.values():
            folder = self._folder(zone)
            folder.mkdir(parents=True, exist_ok=True)
            for file in ("name", "energy_uj", "max_energy_range_uj"):
                self._write_file(folder / file, zone)
            link = self.root / zone.folder
            if not link.is_symlink():
                link.symlink_to(folder.relative_to(self.root), target_is_directory=True)

    def _write_file(self, path: Path, zone: FakeZone) -> None:
        try:
            text = self.read(self.root / zone.folder / path.name)
        except PermissionError:
            return
        except FileNotFoundError:
            if path.exists():
                os.truncate(path, 0)
                path.unlink()
            return
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:  # as long as it was before, so that no reader meets it cut short
            os.pwrite(file, text.ljust(_WIDTH, "\n").encode(), 0)
        finally:
            os.close(file)

    def _folder(self, zone: FakeZone) -> Path:
        kind, *numbers = zone.folder.split(":")
        names = [":".join([kind, *numbers[: n + 1]]) for n in range(len(numbers))]
        return self.root.joinpath(kind, *names)

    def _value(self, zone: FakeZone, file: str, now_s: float) -> str | int:
        if file == "name":
            return zone.name
        return zone.span_uj if file == "max_energy_range_uj" else self._count(zone, now_s)

    def _count(self, zone: FakeZone, now_s: float) -> int:
        at_s, since_s, offset = now_s, 0.0, zone.offset_uj
        for fault in zone.faults:
            if fault.kind == "stuck" and fault.start_s <= now_s < fault.stop_s:
                at_s = min(at_s, fault.start_s)
            if fault.kind == "reset" and fault.start_s <= now_s:
                since_s, offset = max(since_s, fault.start_s), 0
        published_s = max(since_s, math.floor(at_s / self.update_s) * self.update_s)
        return (offset + round(1e6 * energy_j(zone.power, since_s, published_s))) % zone.span_uj
