"""Following a counter of energy that wraps, may be reset and may stand still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

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


class Followed(NamedTuple):  # a third of the time of a frozen dataclass, and a window waits for it
    """What a counter showed first and last, in counts and seconds, and the ``joules`` between the two.

    ``distinct`` counts the different values seen, ``wraps`` how often it started again.
    """

    name: str
    unit_j: float
    span: int | None
    first: int
    first_s: float
    last: int
    last_s: float
    joules: float
    distinct: int
    wraps: int


def follow(name: str, unit_j: float, span: int | None, shown: Sequence[tuple[int, float]]) -> Followed:
    """Sum the steps of one counter over what it showed, and when, across wraps.

    ``span`` is where the counter starts again, ``None`` where it never does; ``unit_j`` the joules of one
    count. Readings further apart than ``longest_gap_s`` are refused: a wrap could be between them.

    Raises:
        MeterError: it showed what is not within its span, was left unread for too long, or moved by more than
            any hardware could draw.
        StuckCounter: it did not move for ``STALE_S`` or longer, or not at all: two different values stand
            behind every measured number.
    """
    if span is not None:
        outside = [count for count, _ in shown if not 0 <= count <= span]
        if outside:
            raise MeterError(f"{name} showed {outside[0]}, which is not within its span of {span}")
    first, first_s = last, last_s = shown[0]
    longest_s, total, distinct, wraps = longest_gap_s(unit_j, span), 0, 1, 0
    for count, at_s in shown[1:]:
        gap_s, step = at_s - last_s, count - last
        if step < 0 and span is not None:
            step += span
            wraps += 1
        possible = 0 <= step * unit_j <= MOST_W * (gap_s + _SLACK_S)
        if not possible or gap_s > longest_s or (step == 0 and gap_s >= STALE_S):
            raise _implausible(name, (last, count), gap_s, longest_s)
        distinct += step > 0
        total += step
        last, last_s = count, at_s
    if distinct < 2:
        raise StuckCounter(
            f"{name} showed {last} at the start and at the end of {last_s - first_s:.3g} s: "
            "it is stuck, or the window is too short for it"
        )
    return Followed(name, unit_j, span, first, first_s, last, last_s, total * unit_j, distinct, wraps)


def _implausible(name: str, counts: tuple[int, int], gap_s: float, longest_s: float) -> MeterError:
    before, after = counts
    if gap_s > longest_s:
        return MeterError(f"{name} was not read for {gap_s:.0f} s, in which it may have wrapped unseen")
    if before == after:
        return StuckCounter(f"{name} is stuck: it showed {after} for {gap_s:.1f} s")
    return MeterError(
        f"{name} went from {before} to {after} in {gap_s:.3g} s: it was reset, or counts wrongly"
    )


def same_register(one: Followed, other: Followed) -> bool:
    """Whether two show one counter: equal values at both ends of the window, so equal steps.

    Two packages hardly ever agree to a joule in what they have counted since boot; dies that mirror their
    socket always do, but for what is drawn between reading one and the other.
    """
    return _near(one, one.first - other.first, one.first_s - other.first_s) and _near(
        one, one.last - other.last, one.last_s - other.last_s
    )


def _near(one: Followed, difference: int, apart_s: float) -> bool:
    """Whether two values are the same but for what was drawn between reading them."""
    distance = abs(difference)
    if one.span is not None:
        distance = min(distance, abs(one.span - distance))
    duration_s = one.last_s - one.first_s
    drawn_w = one.joules / duration_s if duration_s > 0 else 0.0
    return distance * one.unit_j <= _SAME_J + 2 * drawn_w * abs(apart_s)
