"""RAPL through powercap: counters of 32 bits that wrap within minutes at full load."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from leanmark.meters import powercap
from leanmark.meters.processor import Domain, ProcessorEnergy
from leanmark.meters.ticker import Repeat

_JOULES_PER_COUNT = 1e-6


class Rapl(ProcessorEnergy):
    """Energy of packages and memory from ``energy_uj`` under ``root``, in joules.

    Counters are read from files that stay open until ``close``, or by ``read`` where one is given.
    """

    source = "powercap"
    since_boot = True

    def __init__(
        self,
        root: Path = powercap.ROOT,
        *,
        read: powercap.Read | None = None,
        clock: Callable[[], float] = time.perf_counter,
        repeat: Repeat | None = None,
    ) -> None:
        super().__init__(clock, repeat)
        self._root = root
        self._read = read

    def find_domains(self) -> tuple[Domain, ...]:
        zones = powercap.zones(self._root, self._read or powercap.read_text)
        main = "package" if any(zone.kind == "package" for zone in zones) else "psys"
        return tuple(
            Domain(
                name=zone.name,
                kind=zone.kind,
                unit_j=_JOULES_PER_COUNT,
                span=zone.span_uj,
                show=self._shown(zone),
                failure=partial(powercap.no_count, zone.counter),
                required=zone.kind == main,
            )
            for zone in zones
        )

    def _shown(self, zone: powercap.Zone) -> Callable[[], str | bytes]:
        if self._read is not None:
            return partial(self._read, zone.counter)
        counter = powercap.KeptCounter(zone)
        self.held.append(counter)
        return counter.read
