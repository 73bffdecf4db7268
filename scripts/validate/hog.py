"""A process that keeps one core busy, on and off at random: the neighbour that a shared machine has."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from leanmark.protocol import process

SHORTEST_S, LONGEST_S = 0.1, 1.5


@contextmanager
def busy(core: int, seed: int) -> Iterator[None]:
    """``core`` is kept busy, coming and going, as long as the context lasts."""
    child = subprocess.Popen([sys.executable, __file__, str(core), str(seed), str(os.getpid())])
    try:
        yield
    finally:
        child.kill()
        child.wait()


def come_and_go(core: int, seed: int) -> None:
    """Spin and sleep in turns of 0.1 to 1.5 s; never returns."""
    process.pin([core])
    draw = random.Random(seed)
    while True:
        until = time.perf_counter() + draw.uniform(SHORTEST_S, LONGEST_S)
        while time.perf_counter() < until:
            pass
        time.sleep(draw.uniform(SHORTEST_S, LONGEST_S))


if __name__ == "__main__":
    process.die_with_parent(int(sys.argv[3]))
    come_and_go(int(sys.argv[1]), int(sys.argv[2]))
