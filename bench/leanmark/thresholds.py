"""Which differences count: for each metric a share of the baseline, and a difference too small to ever count.

Part of a run's plan, so that its records are read the way they were meant. Pure; standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from leanmark.errors import UnknownName, UsageError

Judged = Literal["latency", "memory", "energy", "accuracy"]

DEFAULTS: Mapping[Judged, float] = {"latency": 0.02, "memory": 0.02, "energy": 0.02, "accuracy": 0.01}
"""Shares of the baseline's value; of accuracy, a difference: 0.01 is one percentage point."""

_KINDS: Mapping[str, Judged] = {"_s": "latency", "_bytes": "memory", "_j": "energy"}

_UNITS: Mapping[Judged, Mapping[str, float]] = {
    "latency": {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
    "memory": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "energy": {"uJ": 1e-6, "µJ": 1e-6, "mJ": 1e-3, "J": 1.0},
}

_FLOOR = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-zµ]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What was asked for; a metric that is not named has its default margin, and no floor.

    ``floors`` are in seconds, bytes and joules.
    """

    margins: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)

    def margin(self, kind: Judged) -> float:
        return self.margins.get(kind, DEFAULTS[kind])

    def floor(self, kind: Judged, value: float) -> float:
        """The floor as a share of the baseline's ``value``; 0 without one."""
        return self.floors.get(kind, 0.0) / value if value > 0 else 0.0


def kind_of(metric: str) -> Judged:
    """What a metric is judged as, by the unit that closes its name."""
    return next((kind for unit, kind in _KINDS.items() if metric.endswith(unit)), "latency")


def parse(margins: Iterable[str] = (), floors: Iterable[str] = ()) -> Thresholds:
    """From texts such as ``latency=1%`` and ``latency=100ns``.

    Raises:
        UnknownName: there is no such metric.
        UsageError: it is no percentage, or no amount in a unit of the metric.
    """
    return Thresholds(
        margins={kind: share(value, text) for kind, value, text in _pairs(margins, "1%", DEFAULTS)},
        floors={kind: _amount(kind, value, text) for kind, value, text in _pairs(floors, "100ns", _UNITS)},
    )


def share(text: str, whole: str) -> float:
    """``2.5%`` as 0.025; ``whole`` is what the user typed.

    Raises:
        UsageError: it is no percentage above 0 and below 100.
    """
    try:
        found = float(text.removesuffix("%")) / 100
    except ValueError:
        found = math.nan
    if not text.endswith("%") or not 0 < found < 1:
        raise UsageError(f"'{whole}': a margin is a percentage such as 2.5%, above 0 and below 100")
    return found


def _pairs(
    texts: Iterable[str], example: str, known: Mapping[Judged, object]
) -> Iterable[tuple[Judged, str, str]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"'{text}': write METRIC={example}, for example latency={example}")
        yield _kind(name.strip(), known), value.strip(), text


def _kind(name: str, known: Mapping[Judged, object]) -> Judged:
    for kind in get_args(Judged):
        if kind == name and kind in known:
            found: Judged = kind
            return found
    raise UnknownName("metric", name, known)


def _amount(kind: Judged, text: str, whole: str) -> float:
    match = _FLOOR.fullmatch(text)
    units = _UNITS[kind]
    if match is None or match["unit"] not in units:
        raise UsageError(f"'{whole}': a floor of {kind} is an amount in {', '.join(units)}, such as 100ns")
    return float(match["number"]) * units[match["unit"]]
