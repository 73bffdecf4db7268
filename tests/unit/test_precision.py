"""What would help more, and when it is enough, on noise whose two levels are known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from leanmark.plan import FULL, QUICK
from leanmark.record import Case
from leanmark.statistics import precision, stats
from leanmark.statistics.stats import Ratios

CASE = Case(workload="cnn", technique="prune")


def simulated(processes: int, rounds: int, between: float, within: float, seed: int = 0) -> Ratios:
    draw = np.random.default_rng(seed)
    return {process: draw.normal(0, between) + draw.normal(0, within, rounds) for process in range(processes)}


def test_more_is_needed_while_the_interval_is_wider_than_wanted() -> None:
    noisy, quiet = simulated(5, 20, 0.05, 0.01), simulated(25, 20, 0.002, 0.005)
    assert precision.need({CASE: noisy}, FULL) > 1 > precision.need({CASE: quiet}, FULL)


def test_the_widest_interval_decides() -> None:
    found = {CASE: simulated(5, 20, 0.05, 0.01), replace(CASE, technique="bf16"): simulated(25, 20, 0, 0.001)}
    assert precision.need(found, FULL) == precision.need({CASE: found[CASE]}, FULL)


def test_few_processes_are_never_precise_enough_for_one_percent() -> None:
    assert precision.half_width(simulated(2, 60, 0.0, 1e-4)) > stats.allowance(2) > QUICK.precision


def test_a_contest_without_an_interval_needs_more() -> None:
    assert math.isinf(precision.need({CASE: simulated(2, 2, 0.01, 0.01)}, FULL))


def test_noise_between_processes_asks_for_processes_and_noise_within_for_rounds() -> None:
    def rounds(between: float, within: float) -> int:
        found = {CASE: simulated(40, 40, between, within, seed=0)}
        return precision.rounds(found, open_s=1.0, round_s=0.1, plan=replace(FULL, precision=1e-6))

    assert rounds(between=0.05, within=0.005) == precision.MIN_ROUNDS
    assert rounds(between=0.0, within=0.05) > 30
    # sqrt(10 * (pi / 2) * 4) = 7.9 for a ratio of deviations of 2; the estimate is noisy, and bounded below
    assert rounds(between=0.02, within=0.08) == pytest.approx(16, abs=8)


def test_an_expensive_process_is_used_for_longer() -> None:
    found = {CASE: simulated(20, 40, 0.02, 0.06, seed=1)}
    strict = replace(FULL, precision=1e-6)
    cheap = precision.rounds(found, open_s=0.1, round_s=0.1, plan=strict)
    dear = precision.rounds(found, open_s=20.0, round_s=0.1, plan=strict)
    assert cheap < dear


def test_the_rule_reaches_its_precision_with_honest_coverage() -> None:
    """First look, then processes until the interval is as narrow as wanted: 95 % nominal, a little under."""
    plan = replace(FULL, precision=0.01)
    covered, processes = 0, []
    for seed in range(300):
        whole = simulated(plan.max_processes, 20, 0.01, 0.02, seed)
        count = plan.processes
        while count < plan.max_processes:
            if precision.need({CASE: {n: whole[n] for n in range(count)}}, plan) <= 1:
                break
            count += 1
        interval = stats.across_processes({n: whole[n] for n in range(count)})
        covered += interval.low <= 1.0 <= interval.high
        processes.append(count)
    assert covered / 300 > 0.90
    assert 6 < float(np.mean(processes)) < 15
