"""Finding updates of a counter from outside, while the work runs in another process."""

from __future__ import annotations

import math

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.window import FINE_S, STUCK_S, Clock, Edge, Read

_APART_S = (0.1, 1.0)
"""Updates are placed this far apart, further in a long window: only the first and the last one count."""

_TAIL = 0.1
"""The share of a window that may be lost behind its last placed update."""

_WIDE = 0.002
"""How well an update must be placed, as a share of the window so far."""

_MOST_W = 5000.0
_UNIT_J = 1e-3
_REST_S = 1.0


class EdgeFinder:
    """Its ``act`` sleeps until shortly before an update is due, then looks closely until it comes."""

    def __init__(self, name: str, read: Read, clock: Clock, period_s: float) -> None:
        self._name = name
        self.first: Edge | None = None
        self.last: Edge | None = None
        self.distinct = 1
        self._read = read
        self._clock = clock
        self._period_s = period_s
        self._guard_s = 2 * FINE_S + 0.02 * period_s
        self._failed: MeterError | None = None
        self._start_s = self._changed_s = self._before_s = clock()
        self._count = read()

    def act(self) -> float:
        """Look at the counter; see ``leanmark.meters.ticker.Act``."""
        if self._failed is None:
            try:
                return self._look()
            except MeterError as error:
                self._failed = error
        return _REST_S

    def finish(self, now_s: float) -> tuple[Edge, Edge]:
        """The first update that was placed, and the last, of a window that was over at ``now_s``.

        Raises:
            StuckCounter: the counter stands still.
            MeterError: it went wrong, or too few updates fell into the window.
        """
        if self._failed is not None:
            raise self._failed
        still_s = now_s - self._changed_s
        if self.distinct == 1 or still_s > max(STUCK_S, 5 * self._period_s):
            raise StuckCounter(
                f"{self._name}: its energy counter showed {self._count} mJ for {still_s:.3g} s: "
                f"it is stuck, or the window is too short for it (it changes every {self._period_s:.3g} s)"
            )
        if self.first is None or self.last is None or self.first is self.last:
            raise MeterError(
                f"{self._name}: its energy counter changes every {self._period_s:.3g} s: the window of "
                f"{now_s - self._start_s:.3g} s is too short for two updates"
            )
        return self.first, self.last

    def _look(self) -> float:
        asked_s = self._clock()
        count, now_s = self._read(), self._clock()
        before_s, self._before_s = self._before_s, asked_s
        if count == self._count:
            return FINE_S
        self._check(count, now_s)
        self._count, self._changed_s = count, now_s
        self.distinct += 1
        edge = Edge(count, before_s, now_s)
        window_s = now_s - self._start_s
        if edge.doubt <= max(2 * FINE_S, _WIDE * window_s):
            self.first = self.first or edge
            self.last = edge
        elif edge.doubt < self._period_s / 4:  # we woke too late: look earlier, for the next ones too
            self._guard_s = min(self._guard_s + edge.doubt, self._period_s / 2)
        else:
            return FINE_S
        apart_s = min(max(_TAIL * window_s, _APART_S[0]), _APART_S[1])
        ahead_s = math.ceil(apart_s / self._period_s) * self._period_s
        return max(FINE_S, edge.middle + ahead_s - self._guard_s - now_s)

    def _check(self, count: int, now_s: float) -> None:
        step_j = (count - self._count) * _UNIT_J
        gap_s = now_s - self._changed_s
        if not 0 <= step_j <= _MOST_W * (gap_s + self._period_s):
            raise MeterError(
                f"{self._name}: its energy counter went from {self._count} to {count} mJ in {gap_s:.3g} s: "
                "it was reset, or counts wrongly"
            )
