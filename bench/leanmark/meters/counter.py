"""Following a counter of energy that wraps, may be reset and may stand still."""

from __future__ import annotations

import math

from leanmark.errors import MeterError, StuckCounter

MOST_W = 1000.0
"""No single domain draws more. It bounds how fast a counter can wrap and what a jump can be."""

STALE_S = 1.0
"""A counter of energy that shows the same value for so long is stuck: they move every few milliseconds."""

_SAME_J = 1.0

_SLACK_S = 0.01
"""An update can carry what was drawn a little before the time it is read at."""


def longest_gap_s(unit_j: float, span: int | None) -> float:
    """How long a counter may go unread before a wrap of it can go unseen."""
    return math.inf if span is None else span * unit_j / MOST_W


class Follower:
    """Sums the steps of one counter from its first reading on, across wraps.

    ``span`` is where the counter starts again, ``None`` where it never does; ``unit_j`` the joules of one
    count. Read it at least every ``longest_gap_s``, or a wrap can go unseen.
    """

    __slots__ = (
        "_span", "_total", "_unit_j",
        "distinct", "first", "first_s", "last", "last_s", "longest_gap_s", "name", "wraps",
    )  # fmt: skip

    def __init__(self, name: str, unit_j: float, span: int | None, count: int, at_s: float) -> None:
        self.name = name
        self.distinct = 1
        self.wraps = 0
        self.first = self.last = count
        self.first_s = self.last_s = at_s
        self._unit_j = unit_j
        self._span = span
        self._total = 0
        self.longest_gap_s = longest_gap_s(unit_j, span)

    @property
    def joules(self) -> float:
        return self._total * self._unit_j

    @property
    def duration_s(self) -> float:
        """Between the first reading and the last."""
        return self.last_s - self.first_s

    def update(self, count: int, at_s: float) -> None:
        """Take the reading ``count`` of the time ``at_s``.

        Raises:
            MeterError: it was left unread for too long, or moved by more than any hardware could draw.
            StuckCounter: it did not move for ``STALE_S`` or longer.
        """
        gap_s = at_s - self.last_s
        step = count - self.last
        if gap_s > self.longest_gap_s:
            raise MeterError(
                f"{self.name} was not read for {gap_s:.0f} s, in which it may have wrapped unseen"
            )
        if step == 0 and gap_s >= STALE_S:
            raise StuckCounter(f"{self.name} is stuck: it showed {count} for {gap_s:.1f} s")
        if step < 0 and self._span is not None:
            step += self._span
            self.wraps += 1
        if not 0 <= step * self._unit_j <= MOST_W * (gap_s + _SLACK_S):
            raise MeterError(
                f"{self.name} went from {self.last} to {count} in {gap_s:.3g} s: it was reset, "
                "or counts wrongly"
            )
        self.distinct += step > 0
        self._total += step
        self.last, self.last_s = count, at_s

    def demand_movement(self) -> None:
        """Two different values stand behind every measured number.

        Raises:
            StuckCounter: only one was seen.
        """
        if self.distinct < 2:
            raise StuckCounter(
                f"{self.name} showed {self.last} at the start and at the end of {self.duration_s:.3g} s: "
                "it is stuck, or the window is too short for it"
            )

    def near(self, other: Follower, *, at_end: bool) -> bool:
        """Whether both showed the same value, but for what was drawn between the two readings."""
        mine, its = (self.last, other.last) if at_end else (self.first, other.first)
        apart_s = self.last_s - other.last_s if at_end else self.first_s - other.first_s
        distance = abs(mine - its)
        if self._span is not None:
            distance = min(distance, abs(self._span - distance))
        drawn_w = self.joules / self.duration_s if self.duration_s > 0 else 0.0
        return distance * self._unit_j <= _SAME_J + 2 * drawn_w * abs(apart_s)


def same_register(one: Follower, other: Follower) -> bool:
    """Whether two followers show one counter: equal values at both ends of the window, so equal steps.

    Two packages hardly ever agree to a joule in what they have counted since boot; dies that mirror their
    socket always do, but for what is drawn between reading one and the other.
    """
    return one.near(other, at_end=False) and one.near(other, at_end=True)
