"""The ``leanmark`` fixture: a contest between two functions of anybody's test suite.

It runs inside the test's own process, interleaved like any contest. One process is one sample of what
processes do, so the margin is widened by the allowance for one: about 9 % in all, unless
``--leanmark-margin latency=N%`` changes the 2 % in it. Smaller regressions are for ``pytest --benchmark``,
which has processes of its own.
"""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from leanmark.errors import UsageError
from leanmark.reading import compare
from leanmark.record import Block, Interval, Series, Summary, Verdict
from leanmark.statistics import stats
from leanmark.worker import runner

ROUNDS = 30
BLOCK_S = 0.005
WARMUP_S = 1.0

Function = Callable[..., object]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Outcome:
    """Candidate over baseline: ``ratio`` with its interval, and the verdict it allows.

    ``margin`` is what the whole interval has to clear, the allowance for one process included.
    """

    verdict: Verdict
    ratio: Interval
    margin: float

    @property
    def better(self) -> bool:
        return self.verdict == "better"

    @property
    def worse(self) -> bool:
        return self.verdict == "worse"

    @property
    def not_worse(self) -> bool:
        """For a regression test: false only where the whole interval is beyond the margin."""
        return not self.worse

    def __repr__(self) -> str:
        """What pytest shows where an assertion fails."""
        ratio = self.ratio
        return (
            f"{self.verdict}: {ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}] of the baseline, "
            f"margin {self.margin:.1%}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    latency: Outcome


class Leanmark:
    """What the fixture gives to a test. ``seed`` orders the rounds; ``margin`` is what counts, as a share."""

    def __init__(self, seed: int = 0, margin: float = compare.MARGIN) -> None:
        self._seed = seed
        self._margin = margin

    def compare(
        self, baseline: Function, candidate: Function, setup: Callable[[], Any] | None = None
    ) -> Compared:
        """Let both run in turns and judge the candidate.

        With ``setup``, what it returns is the argument of both; it is called anew before every block and
        is not timed.
        """
        _refuse_xdist()
        below, above = _contest((baseline, candidate), setup, self._seed)
        ratios = stats.paired_log_ratios(below, above)
        interval = stats.ratio_interval(ratios)
        assert interval is not None, "thirty rounds always have an interval"
        allowance = stats.allowance(1)
        verdict = compare.judge(interval, self._margin, allowance, "lower")
        margin = (1 + self._margin) * (1 + allowance) - 1
        return Compared(latency=Outcome(verdict=verdict, ratio=interval, margin=margin))

    def measure(self, function: Function, setup: Callable[[], Any] | None = None) -> Summary:
        """The time of one call in seconds, with the interval of its median in this process."""
        _refuse_xdist()
        [series] = _contest((function,), setup, self._seed)
        return stats.summarize(series)


def _contest(functions: tuple[Function, ...], setup: Callable[[], Any] | None, seed: int) -> list[Series]:
    loops = [runner.warm_up(_step(function, setup), WARMUP_S, BLOCK_S).loops for function in functions]
    blocks: list[list[Block]] = [[] for _ in functions]
    draw = random.Random(seed)
    with _no_collections():
        for round_ in range(ROUNDS):
            places = draw.sample(range(len(functions)), len(functions))
            for place, index in enumerate(places):
                step = _step(functions[index], setup)
                time = runner.run_block(step, loops[index])
                blocks[index].append(
                    Block(
                        process=0,
                        round=round_,
                        order=place,
                        value=time.wall_s / loops[index],
                        loops=loops[index],
                        start_s=time.start_s,
                    )
                )
    return [Series(metric="latency_s", meter="wall", blocks=tuple(each)) for each in blocks]


def _step(function: Function, setup: Callable[[], Any] | None) -> runner.Step:
    arguments = () if setup is None else (setup(),)

    def step() -> None:
        function(*arguments)

    return step


@contextmanager
def _no_collections() -> Iterator[None]:
    """A garbage collection would be billed to whichever function it hits."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _refuse_xdist() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        raise UsageError(
            "the leanmark fixture measures one thing at a time: run these tests without pytest-xdist "
            "(-n 0), or deselect them there"
        )
