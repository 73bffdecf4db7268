"""Whole simulated contests, with noise of the shapes that machines have: how often is it right?

Seeds are fixed, so every count below is the same each time; the bounds leave room for another library's
random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from leanmark.reading.compare import MARGIN, judge
from leanmark.record import Verdict
from leanmark.statistics import stats
from leanmark.statistics.stats import Floats, Ratios

CONTESTS = 400
COVERED = 1500
PROCESSES, ROUNDS = 5, 20
WITHIN = 0.02

Shape = Callable[[np.random.Generator], Floats]


def normal(draw: np.random.Generator) -> Floats:
    return draw.normal(0, WITHIN, ROUNDS)


def heavy(draw: np.random.Generator) -> Floats:
    """Student's t with three degrees of freedom: its variance is mostly its tail."""
    return WITHIN * draw.standard_t(3, ROUNDS)


def spiky(draw: np.random.Generator) -> Floats:
    """One block in ten meets something that makes it up to twice as slow, on either side of the ratio."""
    spikes = draw.random(ROUNDS) < 0.1
    return draw.normal(0, WITHIN, ROUNDS) + spikes * draw.uniform(-math.log(2), math.log(2), ROUNDS)


def skewed(draw: np.random.Generator) -> Floats:
    """Two sides that are each slowed at random, as latencies are: never faster than they can be."""
    return draw.exponential(WITHIN, ROUNDS) - draw.exponential(WITHIN, ROUNDS)


SHAPES = [normal, heavy, spiky, skewed]


def contest(draw: np.random.Generator, shape: Shape, effect: float = 0.0, between: float = 0.005) -> Ratios:
    """Log-ratios by process around ``effect``, with a spread of processes of ``between``."""
    return {process: effect + draw.normal(0, between) + shape(draw) for process in range(PROCESSES)}


def verdicts(shape: Shape, effect: float, seed: int) -> list[Verdict]:
    draw = np.random.default_rng(seed)
    intervals = (stats.across_processes(contest(draw, shape, math.log1p(effect))) for _ in range(CONTESTS))
    return [judge(interval, MARGIN, 0.0, "lower") for interval in intervals]


@pytest.mark.parametrize("shape", SHAPES)
def test_identical_code_is_hardly_ever_told_apart(shape: Shape) -> None:
    found = verdicts(shape, 0.0, seed=1)
    assert found.count("better") + found.count("worse") <= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_slow_down_of_five_percent_is_found(shape: Shape) -> None:
    found = verdicts(shape, 0.05, seed=2)
    assert found.count("worse") >= 0.9 * CONTESTS
    assert found.count("better") == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_covers_the_truth(shape: Shape) -> None:
    draw = np.random.default_rng(3)
    truth, covered = 1.03, 0
    for _ in range(COVERED):
        interval = stats.across_processes(contest(draw, shape, math.log(truth)))
        covered += interval.low <= truth <= interval.high
    assert covered >= 0.935 * COVERED


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_of_one_process_covers_that_process(shape: Shape) -> None:
    draw = np.random.default_rng(4)
    covered = 0
    for _ in range(CONTESTS):
        interval = stats.within_process({0: shape(draw)})
        assert interval is not None
        covered += interval.low <= 1 <= interval.high
    assert covered >= 0.95 * CONTESTS


def test_one_wild_round_moves_nothing() -> None:
    """The median of a process does not care how far out its largest round is."""
    draw = np.random.default_rng(5)
    calm = contest(draw, normal)
    wild = {process: values.copy() for process, values in calm.items()}
    for values in wild.values():
        values[values.argmax()] = math.log(1000)
    assert stats.across_processes(wild) == stats.across_processes(calm)


def test_the_order_of_rounds_and_of_processes_is_of_no_account() -> None:
    draw = np.random.default_rng(6)
    found = contest(draw, heavy)
    turned = {-process: values[::-1] for process, values in reversed(list(found.items()))}
    straight, reversed_ = stats.across_processes(found), stats.across_processes(turned)
    assert (reversed_.low, reversed_.value, reversed_.high) == pytest.approx(
        (straight.low, straight.value, straight.high), rel=1e-12
    )
    assert stats.within_process(turned) == stats.within_process(found)
