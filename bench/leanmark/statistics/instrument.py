"""What the meter itself leaves to doubt in a ratio, beside the scatter of the rounds. Pure.

Quantisation and sampling differ from window to window, and so are in the scatter already where there are
many windows; aliasing is the same in all of them, and no scatter shows it. What the meter states is
therefore added whole. The gain of the sensor is on both sides of a ratio on one device, and cancels.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from statistics import median

from leanmark.record import Block, Finding, Interval, Series
from leanmark.statistics.rounds import Pair

MATCHED_C = 3.0
"""Rounds whose two sides began at temperatures further apart are not compared: hotter silicon leaks more."""

NOT_MATCHED = "temperature"


def doubt(series: Series) -> float:
    """The stated uncertainty of a typical window, relative to its value; 0 where the meter states none."""
    stated = [
        block.uncertainty / abs(block.value)
        for block in series.blocks
        if block.uncertainty is not None and block.value
    ]
    return median(stated) if stated else 0.0


def widened(interval: Interval | None, baseline: Series, candidate: Series) -> Interval | None:
    """The interval of a ratio, with the doubts of both meters in quadrature on either side."""
    share = math.hypot(doubt(baseline), doubt(candidate))
    if interval is None or not share:
        return interval
    return replace(interval, low=interval.low / (1 + share), high=interval.high * (1 + share))


def matched(pair: Pair) -> Pair:
    """Flag the rounds whose sides were at different temperatures, and count them.

    Where no temperature is known nothing is flagged.
    """
    below, above = _temperatures(pair.baseline), _temperatures(pair.candidate)
    apart = {place for place in below.keys() & above.keys() if abs(below[place] - above[place]) > MATCHED_C}
    if not apart:
        return pair
    shared = len({_place(block) for block in pair.baseline.blocks})
    count = Counter(process for process, _ in apart)
    message = (
        f"{len(apart)} of {shared} rounds of energy set aside in {len(count)} "
        f"process{'' if len(count) == 1 else 'es'}: their temperatures differed by more than {MATCHED_C:g} °C"
    )
    return Pair(
        baseline=_flagged(pair.baseline, apart),
        candidate=_flagged(pair.candidate, apart),
        findings=(*pair.findings, Finding(code=NOT_MATCHED, message=message)),
    )


def _temperatures(series: Series) -> dict[tuple[int, int], float]:
    return {_place(b): b.temperature_c for b in series.blocks if b.temperature_c is not None}


def _place(block: Block) -> tuple[int, int]:
    return block.process, block.round


def _flagged(series: Series, places: set[tuple[int, int]]) -> Series:
    return replace(
        series,
        blocks=tuple(
            replace(b, flags=(*b.flags, NOT_MATCHED)) if _place(b) in places else b for b in series.blocks
        ),
    )
