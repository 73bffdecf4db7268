import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from leanmark.record import Interval, Series
from leanmark.statistics import stats

from .synthetic import latency, single

positive = st.floats(min_value=1e-6, max_value=1e3)


def known(interval: Interval | None) -> Interval:
    """That there is one belongs to what is tested."""
    assert interval is not None
    return interval


def flag(series: Series, *places: tuple[int, int]) -> Series:
    """``series`` with the blocks at these (process, round) places flagged."""
    blocks = tuple(
        replace(block, flags=("busy",)) if (block.process, block.round) in places else block
        for block in series.blocks
    )
    return replace(series, blocks=blocks)


def contest(
    draw: np.random.Generator,
    *,
    processes: int,
    rounds: int,
    between: float,
    within: float,
    effect: float = 0.0,
) -> dict[int, stats.Floats]:
    """Log-ratios of a simulated contest with noise on two levels."""
    centres = effect + draw.normal(0, between, processes)
    return {i: draw.normal(centre, within, rounds) for i, centre in enumerate(centres)}


def test_pairs_share_process_and_round() -> None:
    series = latency(1.0, processes=2, rounds=3, sd=0.1)
    shuffled = replace(series, blocks=tuple(reversed(series.blocks)))
    ratios = stats.paired_log_ratios(series, shuffled)
    assert {process: list(values) for process, values in ratios.items()} == {0: [0, 0, 0], 1: [0, 0, 0]}


def test_a_round_flagged_on_either_side_is_left_out_whole() -> None:
    base, other = latency(1.0, processes=1, rounds=4), latency(2.0, processes=1, rounds=4)
    ratios = stats.paired_log_ratios(flag(base, (0, 1)), flag(other, (0, 1), (0, 3)))
    assert ratios[0] == pytest.approx([math.log(2)] * 2)


def test_a_ratio_of_something_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        stats.paired_log_ratios(latency(1.0), single("latency_s", 0.0, "wall"))


@given(st.integers(1, 8), st.integers(8, 20), positive, st.integers(0, 99))
def test_the_ratio_of_a_thing_with_itself_is_one(
    processes: int, rounds: int, value: float, seed: int
) -> None:
    series = latency(value, processes=processes, rounds=rounds, seed=str(seed))
    interval = known(stats.ratio_interval(stats.paired_log_ratios(series, series)))
    assert (interval.low, interval.value, interval.high) == (1, 1, 1)


@given(st.integers(1, 8), positive, st.integers(0, 99))
def test_scaling_the_candidate_scales_the_interval(processes: int, scale: float, seed: int) -> None:
    base, other = latency(1.0, processes=processes), latency(1.0, processes=processes, seed=str(seed))
    blocks = tuple(replace(block, value=block.value * scale) for block in other.blocks)
    plain = known(stats.ratio_interval(stats.paired_log_ratios(base, other)))
    scaled = known(stats.ratio_interval(stats.paired_log_ratios(base, replace(other, blocks=blocks))))
    assert scaled.value == pytest.approx(plain.value * scale)
    assert (scaled.low, scaled.high) == pytest.approx((plain.low * scale, plain.high * scale))


@given(st.integers(1, 8), st.integers(0, 99))
def test_the_interval_contains_its_value_and_turns_round_with_the_sides(processes: int, seed: int) -> None:
    base, other = latency(1.0, processes=processes), latency(1.3, processes=processes, seed=str(seed))
    interval = known(stats.ratio_interval(stats.paired_log_ratios(base, other)))
    turned = known(stats.ratio_interval(stats.paired_log_ratios(other, base)))
    assert interval.low <= interval.value <= interval.high
    assert (turned.low, turned.high) == pytest.approx((1 / interval.high, 1 / interval.low))


def test_the_t_interval_is_the_textbook_one() -> None:
    interval = stats.across_processes({i: np.array([x]) for i, x in enumerate([0.1, 0.2, 0.3, 0.4, 0.5])})
    half = 2.7764 * math.sqrt(0.025) / math.sqrt(5)
    assert interval.value == pytest.approx(math.exp(0.3))
    assert math.log(interval.high) == pytest.approx(0.3 + half, rel=1e-4)
    assert interval.scope == "across-processes"


def test_too_few_processes_give_no_t_interval() -> None:
    with pytest.raises(ValueError, match="5 processes"):
        stats.across_processes({i: np.zeros(9) for i in range(4)})


def test_few_processes_are_labelled_and_span_all_that_ran() -> None:
    draw = np.random.default_rng(0)
    ratios = {0: draw.normal(-0.1, 0.001, 30), 1: draw.normal(0.1, 0.001, 30)}
    interval = known(stats.within_process(ratios))
    assert interval.scope == "within-process"
    assert interval.low < math.exp(-0.1) < interval.value < math.exp(0.1) < interval.high
    assert interval.value == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("processes", "enough"), [(1, 6), (2, 7), (4, 8)])
def test_too_few_rounds_give_no_interval(processes: int, enough: int) -> None:
    assert stats.within_process({i: np.arange(float(enough)) for i in range(processes)}) is not None
    assert stats.within_process({i: np.arange(enough - 1.0) for i in range(processes)}) is None
    assert stats.within_process({}) is None


def test_the_interval_covers_the_truth_on_two_levels_of_noise() -> None:
    draw = np.random.default_rng(20261121)
    runs, covered = 1000, 0
    for _ in range(runs):
        interval = stats.across_processes(contest(draw, processes=5, rounds=20, between=0.01, within=0.01))
        covered += interval.low <= 1 <= interval.high
    assert 0.92 <= covered / runs <= 0.98


def test_the_within_process_interval_covers_the_middle_of_the_processes_that_ran() -> None:
    draw = np.random.default_rng(20261122)
    runs, covered = 500, 0
    for _ in range(runs):
        ratios = contest(draw, processes=2, rounds=20, between=0.0, within=0.02)
        interval = known(stats.within_process(ratios))
        covered += interval.low <= 1 <= interval.high
    assert covered / runs >= 0.95


def test_the_detectable_effect_is_found_four_times_in_five() -> None:
    draw = np.random.default_rng(20261123)
    runs, found, margin = 400, 0, 0.02
    spread = 0.01 / math.sqrt(8)
    half = 2.3646 * spread
    ideal = Interval(
        value=1,
        low=math.exp(-half),
        high=math.exp(half),
        confidence=0.95,
        method="",
        scope="across-processes",
    )
    effect = math.log1p(stats.detectable(ideal, 8, margin))
    for _ in range(runs):
        ratios = contest(draw, processes=8, rounds=5, between=0.01, within=0.0, effect=effect)
        found += stats.across_processes(ratios).low > 1 + margin
    assert 0.74 <= found / runs <= 0.88


def test_the_allowance_is_the_calibrated_spread_and_ends_at_five_processes() -> None:
    assert stats.allowance(1) == pytest.approx(1.96 * 0.033, rel=1e-4)
    assert stats.allowance(4) == pytest.approx(1.96 * 0.033 / 2, rel=1e-4)
    assert stats.allowance(5) == 0


def test_how_many_processes_would_settle_it() -> None:
    crossing = Interval(
        value=1.05, low=1.01, high=1.0916, confidence=0.95, method="", scope="across-processes"
    )
    needed = stats.processes_to_settle(crossing, 5, 0.02)
    assert needed is not None and 8 <= needed <= 12
    at_the_margin = replace(crossing, value=1.0201)
    assert stats.processes_to_settle(at_the_margin, 5, 0.02) is None


@given(st.integers(1, 60), st.sampled_from([0.25, 0.5, 0.9]), st.sampled_from([0.9, 0.95, 0.99]))
def test_order_statistics_cover_as_much_as_they_say(n: int, q: float, confidence: float) -> None:
    interval = stats.order_statistic_interval(np.arange(n), q, confidence)
    if interval is None:
        assert min(1 - q**n, 1 - (1 - q) ** n) < 1 - (1 - confidence) / 2
        return
    low, high = int(interval.low), int(interval.high)
    assert binom.cdf(high, n, q) - binom.cdf(low, n, q) >= confidence - 1e-9
    assert interval.low <= interval.value <= interval.high


def test_order_statistics_of_the_median_of_ten() -> None:
    interval = known(stats.order_statistic_interval(range(1, 11)))
    assert (interval.low, interval.value, interval.high) == (2, 5.5, 9)


def test_wilson_matches_the_textbook() -> None:
    interval = stats.wilson(436, 450)
    assert (interval.low, interval.high) == pytest.approx((0.9485, 0.9814), abs=2e-4)
    assert stats.wilson(450, 450).high == 1
    assert stats.wilson(0, 450).low == 0


def test_paired_accuracy_of_equal_models_straddles_zero() -> None:
    interval = stats.paired_accuracy_change(0, 0, 450)
    assert interval.value == 0
    assert interval.high == pytest.approx(1.96 / 452, rel=1e-3)
    assert interval.low == -interval.high


@given(st.integers(1, 2000), st.data())
def test_paired_accuracy_contains_what_was_seen_and_is_antisymmetric(n: int, data: st.DataObject) -> None:
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    interval = stats.paired_accuracy_change(gained, lost, n)
    turned = stats.paired_accuracy_change(lost, gained, n)
    assert -1 <= interval.low <= (gained - lost) / n <= interval.high <= 1
    assert (turned.low, turned.high) == pytest.approx((-interval.high, -interval.low))


def test_a_summary_of_many_processes() -> None:
    summary = stats.summarize(latency(2.0, processes=6, rounds=10))
    assert summary.value == pytest.approx(2.0, rel=0.02)
    interval = known(summary.interval)
    assert interval.scope == "across-processes"
    assert interval.low < summary.value < interval.high
    assert (summary.count, summary.processes) == (60, 6)


def test_a_summary_of_few_processes_is_labelled() -> None:
    summary = stats.summarize(latency(2.0, processes=2, rounds=10))
    assert known(summary.interval).scope == "within-process"


def test_a_single_block_has_a_value_and_no_interval() -> None:
    summary = stats.summarize(single("peak_memory_bytes", 1e6, "host_memory"))
    assert summary.value == 1e6
    assert summary.interval is None


def test_flagged_blocks_do_not_count_unless_all_are() -> None:
    series = latency(1.0, processes=1, rounds=9)
    wild = replace(series.blocks[4], value=100.0, flags=("busy",))
    mixed = replace(series, blocks=(*series.blocks[:4], wild))
    assert stats.process_medians(mixed) == stats.process_medians(replace(series, blocks=series.blocks[:4]))
    assert stats.process_medians(replace(series, blocks=(wild,))) == [100.0]


def test_an_unpaired_ratio_needs_five_processes_on_each_side() -> None:
    base, other = latency(1.0, processes=6), latency(1.2, processes=6, seed="1")
    interval = known(stats.unpaired_ratio(base, other))
    assert interval.low < 1.2 < interval.high
    assert interval.high - interval.low < 0.05
    assert stats.unpaired_ratio(latency(1.0, processes=4), other) is None
