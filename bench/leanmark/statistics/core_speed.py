"""What the speed of the core itself leaves to doubt in a ratio of times. Pure.

Rounds of one contest share whatever the core does, so their ratios need none of this. Two runs do not.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import geometric_mean, median

from leanmark.record import Interval, Series

MOST = 2.0
"""How much more than hashing a step may lose, on a logarithmic scale. Measured beside neighbours: 0.1 to 1.7;
hashing took 1.34 times as long and a network of convolutions 1.64 times."""


def change(below: Series, above: Series) -> float | None:
    """How many times as fast the core was for ``above`` as for ``below``; ``None`` if either was not read."""
    sides = [_typical(series) for series in (below, above)]
    return sides[1] / sides[0] if sides[0] is not None and sides[1] is not None else None


def widened(interval: Interval, faster: float) -> Interval:
    """The interval of a ratio of times, with all that it could be had the core been as fast on both sides.

    What stays in registers loses next to nothing beside a neighbour, what shares caches with it more than
    hashing does: from nothing to ``MOST`` times its change.
    """
    most = faster**MOST
    return replace(interval, low=interval.low * min(1.0, most), high=interval.high * max(1.0, most))


def _typical(series: Series) -> float | None:
    """The geometric mean of the processes' medians, as the ratio of two runs has it."""
    processes: dict[int, list[float]] = {}
    for block in series.blocks:
        if block.hash_bytes_per_s is not None:
            processes.setdefault(block.process, []).append(block.hash_bytes_per_s)
    return geometric_mean(median(speeds) for speeds in processes.values()) if processes else None
