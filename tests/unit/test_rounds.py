"""Which rounds are left out: bounded, whole, counted for each side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from leanmark.record import Series
from leanmark.statistics import rounds, stats

from .synthetic import latency

BASELINE = latency(1e-3, processes=5, rounds=20, seed="a")
CANDIDATE = latency(2e-3, processes=5, rounds=20, seed="b")


def flagged(series: Series, places: Iterable[tuple[int, int]], *flags: str) -> Series:
    """``series`` with ``flags`` on the blocks at these (process, round)."""
    wanted = set(places)
    blocks = (
        replace(block, flags=block.flags + flags) if (block.process, block.round) in wanted else block
        for block in series.blocks
    )
    return replace(series, blocks=tuple(blocks))


def codes(pair: rounds.Pair) -> list[str]:
    return [finding.code for finding in pair.findings]


def used(pair: rounds.Pair) -> list[int]:
    return [len(each) for each in stats.paired_log_ratios(pair.baseline, pair.candidate).values()]


def test_quiet_rounds_are_all_used() -> None:
    pair = rounds.set_aside(BASELINE, CANDIDATE)
    assert pair == rounds.Pair(baseline=BASELINE, candidate=CANDIDATE)
    assert used(pair) == [20] * 5


def test_a_round_is_left_out_whole_and_counted_for_each_side() -> None:
    below = flagged(BASELINE, [(0, 3), (1, 1)], "preempted")
    above = flagged(CANDIDATE, [(0, 3)], "preempted", "steal")
    pair = rounds.set_aside(below, above)
    assert used(pair) == [19, 19, 20, 20, 20]
    assert codes(pair) == [rounds.SET_ASIDE]
    assert pair.findings[0].message == (
        "2 rounds set aside as disturbed: 2 (2 preempted) in the baseline; "
        "1 (1 preempted, 1 steal) in the candidate"
    )


def test_exactly_a_fifth_of_a_process_may_go() -> None:
    pair = rounds.set_aside(flagged(BASELINE, [(0, round_) for round_ in range(4)], "steal"), CANDIDATE)
    assert used(pair) == [16, 20, 20, 20, 20]
    assert codes(pair) == [rounds.SET_ASIDE]


def test_beyond_a_fifth_all_rounds_of_the_process_are_used_and_it_is_said() -> None:
    below = flagged(BASELINE, [(0, round_) for round_ in range(5)] + [(2, 0)], "steal")
    above = flagged(CANDIDATE, [(0, round_) for round_ in range(5)], "steal")
    pair = rounds.set_aside(below, above)
    assert used(pair) == [20, 20, 19, 20, 20]
    assert codes(pair) == [rounds.SET_ASIDE, rounds.KEPT]
    assert pair.findings[0].message == "1 round set aside as disturbed: 1 (1 steal) in the baseline"
    assert pair.findings[1].message.startswith("1 of 5 processes were disturbed in more than 20% of their")


def test_the_bound_counts_rounds_not_blocks() -> None:
    """Three rounds on one side and three others on the other are six of twenty."""
    below = flagged(BASELINE, [(0, 0), (0, 1), (0, 2)], "preempted")
    above = flagged(CANDIDATE, [(0, 3), (0, 4), (0, 5)], "preempted")
    assert used(rounds.set_aside(below, above))[0] == 20


def test_a_machine_that_is_always_disturbed_loses_nothing() -> None:
    everywhere = [(process, round_) for process in range(5) for round_ in range(20)]
    pair = rounds.set_aside(
        flagged(BASELINE, everywhere, "pressure"), flagged(CANDIDATE, everywhere, "pressure")
    )
    assert used(pair) == [20] * 5
    assert codes(pair) == [rounds.KEPT]
    assert not any(block.flags for block in pair.baseline.blocks)
    unbounded = stats.paired_log_ratios(BASELINE, CANDIDATE)
    kept = stats.paired_log_ratios(pair.baseline, pair.candidate)
    assert all(np.array_equal(kept[process], unbounded[process]) for process in unbounded)


def test_flags_of_one_side_alone_raise_a_doubt() -> None:
    """Eight rounds, all in the candidate: twice 2^-8 by chance."""
    above = flagged(CANDIDATE, [(process, round_) for process in range(4) for round_ in (0, 1)], "preempted")
    pair = rounds.set_aside(BASELINE, above)
    assert codes(pair) == [rounds.SET_ASIDE, rounds.UNEVEN]
    assert "the baseline in 0 rounds, the candidate in 8 rounds" in pair.findings[1].message
    assert "p = 0.008" in pair.findings[1].message


def test_seven_rounds_of_one_side_may_still_be_chance() -> None:
    places = [(process, round_) for process in range(4) for round_ in (0, 1)][:7]
    assert codes(rounds.set_aside(flagged(BASELINE, places, "preempted"), CANDIDATE)) == [rounds.SET_ASIDE]


def test_rounds_flagged_on_both_sides_are_no_sign_of_favour() -> None:
    places = [(process, round_) for process in range(5) for round_ in range(4)]
    pair = rounds.set_aside(flagged(BASELINE, places, "steal"), flagged(CANDIDATE, places, "steal"))
    assert codes(pair) == [rounds.SET_ASIDE]


def test_rounds_that_one_side_never_played_do_not_count() -> None:
    short = replace(CANDIDATE, blocks=tuple(block for block in CANDIDATE.blocks if block.round < 5))
    pair = rounds.set_aside(flagged(BASELINE, [(0, 10), (0, 11)], "steal"), short)
    assert pair.findings == ()
    assert used(pair) == [5] * 5


def test_a_series_by_itself_is_bounded_too() -> None:
    few = flagged(BASELINE, [(0, 0)], "steal")
    assert rounds.bounded(few) == few
    many = flagged(few, [(1, round_) for round_ in range(5)], "preempted")
    assert rounds.bounded(many) == few
