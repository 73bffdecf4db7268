"""The energy counters of the processor that Linux shows under ``/sys/class/powercap``.

Zones nest: psys contains packages, a package contains core and uncore; DRAM is beside its package. One
package can be listed twice, by its registers (``intel-rapl``) and memory-mapped (``intel-rapl-mmio``).
Linux documentation, power/powercap/powercap.rst.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from leanmark.errors import MeterError

ROOT = Path("/sys/class/powercap")

Read = Callable[[Path], str]
Kind = Literal["package", "dram", "psys"]

_LONGEST = 64
"""Bytes of a counter's text: 20 digits and some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One counter in microjoules; after ``span_uj`` it starts again from 0."""

    name: str
    kind: Kind
    counter: Path
    span_uj: int


class KeptCounter:
    """A counter whose file stays open from the first reading on: opening it costs what four readings do.

    After an error it is opened anew, so that a driver that was loaded again is found.
    """

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._file: int | None = None

    def read(self) -> bytes:
        """The text of its count.

        Raises:
            OSError: it cannot be read.
        """
        try:
            if self._file is None:
                self._file = os.open(self._zone.counter, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._file, _LONGEST, 0)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def read_text(path: Path) -> str:
    """The text of a small file."""
    return path.read_text("ascii", errors="replace")


def zones(root: Path, read: Read) -> tuple[Zone, ...]:
    """Every counter that says something about energy of its own, each once.

    Raises:
        MeterError: there is none, or one that matters cannot be used; the message says what to do.
    """
    found: dict[str, Zone] = {}
    for path in sorted(root.glob("intel-rapl*:*")):  # '-' sorts before ':', so mmio comes first
        label = _label(path, root, read)
        kind = _kind(label)
        if kind is not None:
            zone = Zone(name=label, kind=kind, counter=path / "energy_uj", span_uj=_span(path, read))
            if label not in found or _reads(zone, read):
                found[label] = zone
    usable = _that_matter(list(found.values()))
    if not usable:
        raise MeterError(
            f"{root} has no RAPL counter of a package (usual in virtual machines; needs Linux on bare metal)"
        )
    return usable


def _that_matter(found: Sequence[Zone]) -> tuple[Zone, ...]:
    """Packages with their DRAM and psys; psys alone where the machine shows no package."""
    if any(zone.kind == "package" for zone in found):
        return tuple(found)
    return tuple(zone for zone in found if zone.kind == "psys")


def _label(path: Path, root: Path, read: Read) -> str:
    """``package-0``, ``psys``; DRAM carries the name of its package: ``package-0/dram``."""
    own = _text(path / "name", read)
    prefix, _, numbers = path.name.partition(":")
    package, _, nested = numbers.rpartition(":")
    if not package or not nested:
        return own
    return f"{_text(root / f'{prefix}:{package}' / 'name', read)}/{own}"


def _kind(label: str) -> Kind | None:
    last = label.rpartition("/")[2]
    if last.startswith("package"):
        return "package"
    if last in ("dram", "psys"):
        return "dram" if last == "dram" else "psys"
    return None


def _span(path: Path, read: Read) -> int:
    source = path / "max_energy_range_uj"
    span = _number(source, _text(source, read))
    if span <= 0:
        raise MeterError(f"{source} shows {span}: without its span the counter cannot be followed")
    return span


def _reads(zone: Zone, read: Read) -> bool:
    try:
        _number(zone.counter, _text(zone.counter, read))
    except MeterError:
        return False
    return True


def _number(path: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise no_count(path, text) from None


def _text(path: Path, read: Read) -> str:
    try:
        return read(path).strip()
    except OSError as error:
        raise no_count(path, error) from error


def no_count(path: Path, shown: str | bytes | OSError) -> MeterError:
    """Which file, why, and what to do about it."""
    if isinstance(shown, OSError):
        return _unreadable(path, shown)
    text = shown if isinstance(shown, str) else shown.decode("ascii", errors="replace")
    return MeterError(f"{path} shows {text.strip()[:40]!r}, which is not a number")


def _unreadable(path: Path, error: OSError) -> MeterError:
    if isinstance(error, PermissionError):
        return MeterError(
            f"{path} may not be read (root only since CVE-2020-8694); "
            f"to grant it until the next boot: sudo chmod a+r {path.parent.parent}/intel-rapl*/energy_uj"
        )
    return MeterError(f"{path} cannot be read: {error.strerror or error}")
