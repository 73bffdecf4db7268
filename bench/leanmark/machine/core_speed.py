"""How fast the core is at this moment, told by a fixed piece of whole-number work.

A virtual machine shows no clock, and nothing at all shows that the other thread of a core, or another virtual
machine on it, takes a share of its execution units: no time is stolen, no switch is forced, and yet steps
take up to 1.6 times as long, for seconds. Hashing does too: BLAKE2b (RFC 7693) of what lies in the nearest
cache is whole-number arithmetic alone, and loses a third beside such a neighbour, while multiply-adds in
registers lose 2 %.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from statistics import median

_PIECE = bytes(16384)
"""Stays in the nearest cache; long enough for the interpreter around it not to count."""

_PIECES = 8
"""About 0.1 ms in all."""

WHOLE = 0.9
"""Of its best, below which a core is slowed. Alone it is within 3 % of its median, which is 4 % below its
best; beside a neighbour it has 0.56 to 0.8 of that, measured on a virtual machine."""


def hash_bytes_per_s() -> float:
    """Bytes hashed in a second of the calling thread's own CPU time, to a million.

    Time in which the thread was put aside does not count: that is seen elsewhere.
    """
    hashed = hashlib.blake2b(_PIECE, usedforsecurity=False)  # brings code and bytes into the caches
    start = time.thread_time()
    for _ in range(_PIECES):
        hashed.update(_PIECE)
    return round(_PIECES * len(_PIECE) / (time.thread_time() - start), -6)


def slowed_share(speeds: Sequence[float]) -> float | None:
    """The share of ``speeds``, all of one core and a short time, that are below ``WHOLE`` of the best."""
    return sum(speed < WHOLE * max(speeds) for speed in speeds) / len(speeds) if speeds else None


def of_each_core(seconds: float) -> dict[int, float]:
    """The median speed of each core that the calling thread may use, looked at in turn for ``seconds``.

    Empty where a thread cannot choose its core: only Linux lets it.
    """
    if not hasattr(os, "sched_setaffinity"):
        return {}
    allowed = os.sched_getaffinity(0)
    speeds: dict[int, list[float]] = {core: [] for core in sorted(allowed)}
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            for core, found in speeds.items():
                os.sched_setaffinity(0, {core})
                found.append(hash_bytes_per_s())
    finally:
        os.sched_setaffinity(0, allowed)
    return {core: median(found) for core, found in speeds.items()}
