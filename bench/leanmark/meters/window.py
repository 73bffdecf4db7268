"""Windows that begin and end on an update of the counter.

A counter that is published every 100 ms is up to 100 ms old when it is read. Between two of its updates it
is exact, so the work must go on across both, and what is counted is what was done between them. (The
reading error of unaligned windows: Yang, Adamek and Armour, "Part-time Power Measurements", SC 2024.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.base import Reading

STUCK_S = 2.0
"""No counter of energy takes longer to move."""

FINE_S = 1e-3
"""How closely an update is waited for."""

COARSE_S = 0.1
"""How often the counter is looked at where no update is waited for."""

_PROBES = 6
_PROBE_STEP_S = 5e-4
_BATCHES_PER_UPDATE = 20

Read = Callable[[], int]
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Edge:
    """The counter changed to ``count`` after ``early`` and by ``late``, in seconds or in steps."""

    count: int
    early: float
    late: float

    @property
    def middle(self) -> float:
        return (self.early + self.late) / 2

    @property
    def doubt(self) -> float:
        return (self.late - self.early) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """``joules`` were counted over ``steps`` steps in ``duration_s``, between two updates.

    ``uncertainty_j`` is that of ``joules``: where the two updates lie is known to a batch of steps, and
    while the counter is read no step is done. ``distinct`` counts the different values that were seen.
    """

    joules: float
    steps: float
    duration_s: float
    uncertainty_j: float
    distinct: int

    @property
    def joules_per_step(self) -> float:
        return self.joules / self.steps


def update_period(read: Read, clock: Clock, sleep: Sleep) -> float:
    """How often the counter changes, in seconds, found by watching it.

    Raises:
        StuckCounter: it does not change.
    """
    edges: list[float] = []
    count, since_s = read(), clock()
    while len(edges) < _PROBES:
        sleep(_PROBE_STEP_S)
        fresh, now_s = read(), clock()
        if fresh != count:
            edges.append(now_s)
            count, since_s = fresh, now_s
        elif now_s - since_s > STUCK_S:
            raise StuckCounter(f"it showed {count} for {STUCK_S:.0f} s")
    return median(after - before for before, after in pairwise(edges))


def measure_aligned(
    step_many: Callable[[int], None],
    read: Read,
    *,
    unit_j: float,
    period_s: float,
    seconds: float,
    clock: Clock,
) -> Aligned:
    """Keep ``step_many`` working, and count its steps between two updates at least ``seconds`` apart.

    ``step_many(n)`` does ``n`` steps and returns when they are done, on a GPU too. ``read`` gives counts of
    ``unit_j`` joules that change every ``period_s``.

    Raises:
        StuckCounter: the counter does not move while the work runs.
        MeterError: it went back.
    """
    fine, coarse = _batches(step_many, period_s, clock)
    steps, reading_s, changed_s = 0, 0.0, clock()
    before_s, count, distinct = changed_s, read(), 1
    first: tuple[Edge, Edge] | None = None
    while True:
        far = first is not None and before_s + COARSE_S < first[0].middle + seconds
        batch = coarse if far else fine
        step_many(batch)
        steps += batch
        asked_s = clock()
        fresh, now_s = read(), clock()
        reading_s += now_s - asked_s
        if fresh < count:
            raise MeterError(f"the counter went back from {count} to {fresh}: it was reset")
        if fresh == count and now_s - changed_s > max(STUCK_S, 2 * period_s):
            raise StuckCounter(f"the counter showed {count} for {now_s - changed_s:.1f} s of work")
        if fresh > count:
            distinct += 1
            count, changed_s = fresh, now_s
            # the update cannot be older than the one before the next
            share = min(1.0, period_s / (now_s - before_s))
            edge = (
                Edge(fresh, now_s - share * (now_s - before_s), now_s),
                Edge(fresh, steps - share * batch, steps),
            )
            if first is None:
                first, reading_s = edge, 0.0
            elif not far and edge[0].middle - first[0].middle >= seconds:
                return _aligned(first, edge, unit_j, distinct, reading_s)
        before_s = asked_s


def _aligned(
    first: tuple[Edge, Edge], last: tuple[Edge, Edge], unit_j: float, distinct: int, reading_s: float
) -> Aligned:
    joules = (last[0].count - first[0].count) * unit_j
    steps = last[1].middle - first[1].middle
    duration_s = last[0].middle - first[0].middle
    doubt = (first[1].doubt + last[1].doubt) / steps + reading_s / duration_s
    return Aligned(
        joules=joules,
        steps=steps,
        duration_s=duration_s,
        uncertainty_j=joules * doubt + unit_j,
        distinct=distinct,
    )


def _batches(step_many: Callable[[int], None], period_s: float, clock: Clock) -> tuple[int, int]:
    """How many steps let an update be placed well, and how many may pass while none is wanted.

    The second is much larger, since the time it takes to read the counter is not work.
    """
    start_s = clock()
    step_many(1)
    step_s = max(clock() - start_s, 1e-9)
    return (
        max(1, math.floor(period_s / _BATCHES_PER_UPDATE / step_s)),
        max(1, math.floor(COARSE_S / step_s)),
    )


def per_step(reading: Reading, steps: int, wall_s: float) -> tuple[float, float | None]:
    """Joules per step and their uncertainty, for ``steps`` that took ``wall_s`` around the reading.

    The reading may cover less than that (see ``Reading.duration_s``), so it is its power that counts.
    """
    scale = wall_s / steps / reading.duration_s
    doubt = None if reading.uncertainty is None else reading.uncertainty * scale
    return reading.value * scale, doubt
