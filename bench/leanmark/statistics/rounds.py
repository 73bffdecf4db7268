"""Which rounds a comparison leaves out as disturbed, and what that leaves to doubt. Pure.

Whole rounds, never single values by size: what a probe saw decides, not what the clock said. Leaving out is
bounded, since on a machine that is always disturbed it would go on until nothing is left (nvbench, issue
231): a process that would lose more than a fifth of its rounds keeps them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scipy.special import bdtr

from leanmark.record import Block, Finding, Series

MOST_SET_ASIDE = 0.2
"""Of a process's rounds; beyond that, disturbed is how this machine is."""

UNEVEN_P = 0.01
"""Below this probability, equal variants would not be flagged so unequally."""

SET_ASIDE = "rounds_set_aside"
KEPT = "disturbed_rounds_kept"
UNEVEN = "rounds_set_aside_unevenly"

_Place = tuple[int, int]
"""Process and round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two series of one contest, in which only the blocks to leave out are still flagged."""

    baseline: Series
    candidate: Series
    findings: tuple[Finding, ...] = ()


def set_aside(baseline: Series, candidate: Series) -> Pair:
    """Bound what flags leave out of the ratio candidate / baseline, and say what they did.

    Flags stay on blocks whose round is left out, and go where the bound was passed, so that
    ``stats.paired_log_ratios`` uses those rounds. A round counts once, whichever side is flagged in it.
    """
    below, above = _flagged(baseline), _flagged(candidate)
    shared = _places(baseline) & _places(candidate)
    disturbed = shared & (below.keys() | above.keys())
    if not disturbed:
        return Pair(baseline=baseline, candidate=candidate)
    kept = _beyond_bound(shared, disturbed)
    return Pair(
        baseline=_without_flags(baseline, kept),
        candidate=_without_flags(candidate, kept),
        findings=(
            *_left_out(disturbed, kept, below, above),
            *_kept(shared, kept),
            *_uneven(shared & below.keys(), shared & above.keys()),
        ),
    )


def bounded(series: Series) -> Series:
    """One series by itself, for its summary: flags go where a process has too many of them."""
    return _without_flags(series, _beyond_bound(_places(series), set(_flagged(series))))


def _places(series: Series) -> set[_Place]:
    return {_place(block) for block in series.blocks}


def _place(block: Block) -> _Place:
    return block.process, block.round


def _flagged(series: Series) -> dict[_Place, tuple[str, ...]]:
    return {_place(block): block.flags for block in series.blocks if block.flags}


def _beyond_bound(places: set[_Place], disturbed: set[_Place]) -> set[int]:
    """The processes that would lose more than ``MOST_SET_ASIDE`` of their rounds."""
    total = Counter(process for process, _ in places)
    lost = Counter(process for process, _ in disturbed)
    return {process for process in lost if lost[process] > MOST_SET_ASIDE * total[process]}


def _without_flags(series: Series, processes: set[int]) -> Series:
    blocks = tuple(replace(b, flags=()) if b.process in processes else b for b in series.blocks)
    return replace(series, blocks=blocks)


def _left_out(
    disturbed: set[_Place],
    kept: set[int],
    below: Mapping[_Place, tuple[str, ...]],
    above: Mapping[_Place, tuple[str, ...]],
) -> tuple[Finding, ...]:
    """How many rounds are left out, with each side's reasons."""
    gone = {place for place in disturbed if place[0] not in kept}
    if not gone:
        return ()
    sides = {"baseline": below, "candidate": above}
    reasons = [f"{_reasons(gone, side)} in the {name}" for name, side in sides.items() if gone & side.keys()]
    message = f"{_rounds(len(gone))} set aside as disturbed: {'; '.join(reasons)}"
    return (Finding(code=SET_ASIDE, message=message),)


def _reasons(gone: set[_Place], flagged: Mapping[_Place, tuple[str, ...]]) -> str:
    """``3 (2 preempted, 1 steal)``."""
    places = gone & flagged.keys()
    counts = Counter(flag for place in places for flag in flagged[place])
    return f"{len(places)} ({', '.join(f'{count} {flag}' for flag, count in sorted(counts.items()))})"


def _kept(shared: set[_Place], kept: set[int]) -> tuple[Finding, ...]:
    if not kept:
        return ()
    total = len({process for process, _ in shared})
    message = (
        f"{len(kept)} of {total} processes were disturbed in more than {MOST_SET_ASIDE:.0%} of their rounds; "
        "these rounds are used all the same: expect wide intervals, and quieten the machine "
        "(leanmark doctor)"
    )
    return (Finding(code=KEPT, message=message),)


def _uneven(below: set[_Place], above: set[_Place]) -> tuple[Finding, ...]:
    """The exact test of McNemar (Psychometrika 12, 1947) on rounds in which one side alone is flagged."""
    ours, theirs = len(above - below), len(below - above)
    p = min(1.0, 2 * float(bdtr(min(ours, theirs), ours + theirs, 0.5)))
    if p >= UNEVEN_P:
        return ()
    message = (
        f"disturbed alone: the baseline in {_rounds(theirs)}, the candidate in {_rounds(ours)}; by chance "
        f"that happens with p = {p:.1g}, so leaving rounds out may favour one side"
    )
    return (Finding(code=UNEVEN, message=message),)


def _rounds(count: int) -> str:
    return "1 round" if count == 1 else f"{count} rounds"
