from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmark.errors import NotComparable
from leanmark.reading.compare import MARGIN, Side, check_comparable, compare_series, judge, judge_quality
from leanmark.record import Case, Interval, Measurement, Provenance, Run, Series
from leanmark.statistics import stats

from . import synthetic

BASE = Case(workload="cnn")
CANDIDATE = replace(BASE, technique="bf16")

TURNED = {"better": "worse", "worse": "better", "same": "same", "inconclusive": "inconclusive"}

ratios = st.tuples(*[st.floats(0.2, 5.0)] * 3).map(sorted)


def interval(low: float, value: float, high: float) -> Interval:
    return Interval(low=low, value=value, high=high, confidence=0.95, method="", scope="across-processes")


def side(series: Series, case: Case = BASE, *, run: Run | None = None, contest: str | None = "c") -> Side:
    measurement = Measurement(
        run="7f3a", case=case, pass_name="latency", status="ok", work="w", contest=contest, series=(series,)
    )
    return Side(run=run or synthetic.run(), measurement=measurement)


def latencies(value: float, *, processes: int = 5, run: Run | None = None, contest: str = "c") -> Side:
    series = synthetic.latency(value, processes=processes, seed="1")
    return side(series, CANDIDATE, run=run, contest=contest)


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (0.90, 0.95, 0.979, "better"),
        (0.90, 0.95, 0.985, "inconclusive"),
        (0.99, 1.00, 1.01, "same"),
        (0.99, 1.00, 1.021, "inconclusive"),
        (1.021, 1.05, 1.10, "worse"),
        (1.01, 1.05, 1.10, "inconclusive"),
        (0.5, 1.0, 2.0, "inconclusive"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, value: float, high: float, verdict: str) -> None:
    assert judge(interval(low, value, high), 0.02, 0.0, "lower") == verdict
    assert judge(interval(low, value, high), 0.02, 0.0, "higher") == TURNED[verdict]


@pytest.mark.parametrize(("ratio", "floor", "verdict"), [
    (0.60, 0.5, "same"), (0.40, 0.5, "better"), (0.01, 2.0, "same"),
    (1.40, 0.5, "same"), (1.60, 0.5, "worse"),
])  # fmt: skip
def test_a_difference_below_the_floor_never_counts_in_either_direction(
    ratio: float, floor: float, verdict: str
) -> None:
    assert judge(interval(ratio - 1e-3, ratio, ratio + 1e-3), 0.02, 0.0, "lower", floor) == verdict


@given(ratios, st.floats(0.001, 0.5), st.floats(0, 0.2))
def test_turning_the_ratio_round_turns_the_verdict_round(
    bounds: list[float], margin: float, allowance: float
) -> None:
    low, value, high = bounds
    straight = judge(interval(low, value, high), margin, allowance, "lower")
    turned = judge(interval(1 / high, 1 / value, 1 / low), margin, allowance, "lower")
    assert turned == TURNED[straight]


@given(ratios, st.integers(1, 4))
def test_few_processes_never_prove_equality(bounds: list[float], processes: int) -> None:
    low, value, high = bounds
    narrow = interval(1.0, 1.0, 1.0)
    for each in (interval(low, value, high), narrow):
        assert judge(each, MARGIN, stats.allowance(processes), "lower") != "same"


@pytest.mark.parametrize("processes", [1, 2, 5, 8])
def test_identical_code_hardly_ever_gets_a_verdict(processes: int) -> None:
    draw = np.random.default_rng(processes)
    wrong = 0
    for _ in range(300):
        centres = draw.normal(0, stats.BETWEEN_PROCESS_SD, processes)
        found = stats.ratio_interval({i: draw.normal(c, 0.03, 20) for i, c in enumerate(centres)})
        assert found is not None
        verdict = judge(found, MARGIN, stats.allowance(processes), "lower")
        wrong += verdict in ("better", "worse")
    assert wrong / 300 <= 0.02


@given(ratios, st.floats(0, 0.2))
def test_an_allowance_only_takes_verdicts_away(bounds: list[float], allowance: float) -> None:
    low, value, high = bounds
    plain = judge(interval(low, value, high), MARGIN, 0.0, "lower")
    assert judge(interval(low, value, high), MARGIN, allowance, "lower") in (plain, "inconclusive")


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (-0.008, 0.0, 0.008, "same"),
        (-0.05, -0.03, -0.011, "worse"),
        (-0.05, -0.03, -0.009, "inconclusive"),
        (0.011, 0.02, 0.03, "better"),
    ],
)
def test_quality_is_judged_by_its_whole_interval(low: float, value: float, high: float, verdict: str) -> None:
    assert judge_quality(interval(low, value, high)) == verdict
    assert judge_quality(interval(-high, -value, -low)) == TURNED[verdict]
    assert judge_quality(interval(low, value, high), direction="lower") == TURNED[verdict]


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0.9, "better"), (1.1, "worse"), (1.0, "same"), (1.02, "inconclusive")]
)
def test_a_contest_is_compared_round_by_round(seconds: float, verdict: str) -> None:
    found = compare_series(side(synthetic.latency(1.0)), latencies(seconds), "latency_s")
    assert found.verdict == verdict
    assert found.ratio is not None
    assert found.ratio.low < seconds < found.ratio.high
    assert (found.pairs, found.processes, found.allowance) == (100, 5, 0)
    assert found.ratio.scope == "across-processes"
    assert found.detectable is not None and found.detectable > MARGIN


def test_an_inconclusive_ratio_says_what_would_settle_it() -> None:
    found = compare_series(side(synthetic.latency(1.0)), latencies(1.025), "latency_s")
    assert found.verdict == "inconclusive"
    assert found.reason is not None and "5 processes seen, about" in found.reason
    assert found.more_processes is not None and found.more_processes > 0
    assert found.more_s is None  # these records do not say what a process took


def took(one: Side, *seconds: float) -> Side:
    """``one`` with what each of its processes took."""
    places = [{"process": index, "wall_s": wall_s} for index, wall_s in enumerate(seconds)]
    return replace(one, measurement=replace(one.measurement, executed={"processes": places}))


def test_it_says_how_long_that_would_take_from_what_a_process_took() -> None:
    found = compare_series(side(synthetic.latency(1.0)), took(latencies(1.025), 2, 2, 2, 2, 90), "latency_s")
    assert found.more_processes is not None and found.reason is not None
    assert found.more_s == 2 * found.more_processes
    assert found.reason.startswith(
        f"5 processes seen, about {5 + found.more_processes} would settle it: about "
    )
    base = side(synthetic.latency(1.0, processes=2))
    few = compare_series(base, took(latencies(0.96, processes=2), 1.5, 1.5), "latency_s")
    assert (few.more_processes, few.more_s) == (3, 4.5)
    assert few.reason is not None and few.reason.endswith("needs at least: about 4.50 s more")


def test_a_settled_ratio_needs_no_more() -> None:
    found = compare_series(side(synthetic.latency(1.0)), took(latencies(1.1), 2, 2, 2, 2, 2), "latency_s")
    assert (found.verdict, found.more_processes, found.more_s, found.reason) == ("worse", None, None, None)


def test_with_few_processes_only_large_effects_get_a_verdict() -> None:
    base = side(synthetic.latency(1.0, processes=2))
    assert compare_series(base, latencies(0.5, processes=2), "latency_s").verdict == "better"
    small = compare_series(base, latencies(0.96, processes=2), "latency_s")
    assert small.verdict == "inconclusive"
    assert small.allowance == pytest.approx(0.0457, abs=1e-4)
    assert small.reason == "2 of the 5 processes that settling it needs at least"
    assert small.ratio is not None and small.ratio.scope == "within-process"


def test_too_few_rounds_give_no_ratio() -> None:
    base = side(synthetic.latency(1.0, processes=2, rounds=3))
    other = side(synthetic.latency(1.0, processes=2, rounds=3), CANDIDATE)
    found = compare_series(base, other, "latency_s")
    assert (found.ratio, found.verdict) == (None, "inconclusive")
    assert found.reason == "6 rounds in 2 processes are too few for an interval"


def test_rounds_set_aside_are_told_for_each_side() -> None:
    series = synthetic.latency(1.0)
    disturbed = replace(series, blocks=(replace(series.blocks[0], flags=("busy",)), *series.blocks[1:]))
    found = compare_series(side(series), side(disturbed, CANDIDATE), "latency_s")
    assert found.pairs == 99
    assert found.findings[0].message == ("1 round set aside as disturbed: 1 (1 busy) in the candidate")


def test_two_runs_are_compared_without_pairs() -> None:
    later = synthetic.run(id="8888")
    found = compare_series(
        side(synthetic.latency(1.0, processes=6)),
        latencies(1.2, processes=6, run=later, contest="d"),
        "latency_s",
    )
    assert found.verdict == "worse"
    assert found.pairs == 0
    assert found.ratio is not None and "Welch" in found.ratio.method


def test_two_runs_keep_the_processes_that_were_disturbed_throughout() -> None:
    """As their summaries do: else the ratio would be that of the lucky ones."""
    quiet, loud = synthetic.latency(1.0, processes=10), synthetic.latency(2.0, processes=10)
    blocks = [
        replace(there, flags=("preempted",)) if there.process >= 5 else here
        for here, there in zip(quiet.blocks, loud.blocks, strict=True)
    ]
    found = compare_series(
        side(replace(quiet, blocks=tuple(blocks))),
        latencies(2.0**0.5, processes=10, run=synthetic.run(id="8888"), contest="d"),
        "latency_s",
    )
    assert found.ratio is not None and found.ratio.value == pytest.approx(1.0, rel=0.02)
    assert found.processes == 10


def test_two_runs_of_few_processes_are_not_decided() -> None:
    found = compare_series(
        side(synthetic.latency(1.0, processes=3)), latencies(3.0, processes=3, contest="d"), "latency_s"
    )
    assert (found.ratio, found.verdict) == (None, "inconclusive")
    assert found.reason is not None and "an interval needs 5" in found.reason


def test_the_memory_of_one_process_is_no_verdict() -> None:
    series = synthetic.single("working_memory_bytes", 1e6, "host_memory")
    half = replace(series, blocks=(replace(series.blocks[0], value=0.5e6),))
    found = compare_series(
        side(series, contest=None), side(half, CANDIDATE, contest=None), "working_memory_bytes"
    )
    assert (found.ratio, found.verdict, found.reason) == (None, "inconclusive", "one process")


def test_nothing_is_divided_by_zero() -> None:
    zero = synthetic.single("working_memory_bytes", 0.0, "host_memory")
    one = synthetic.single("working_memory_bytes", 1.0, "host_memory")
    found = compare_series(side(zero), side(one, CANDIDATE), "working_memory_bytes")
    assert found.ratio is None
    assert found.reason is not None and "not above zero" in found.reason


@pytest.mark.parametrize("estimated", ["baseline", "candidate", "both"])
def test_an_estimate_of_energy_has_no_ratio(estimated: str) -> None:
    measured = replace(synthetic.latency(1.0), metric="energy_j")
    estimate = replace(measured, provenance=Provenance.ESTIMATED_MODEL)
    below = measured if estimated == "candidate" else estimate
    above = measured if estimated == "baseline" else estimate
    found = compare_series(side(below), side(above, CANDIDATE), "energy_j")
    assert (found.ratio, found.verdict) == (None, "inconclusive")
    assert found.reason == "not measured: an estimate derived from time adds nothing to the latency ratio"
    assert found.provenance is Provenance.ESTIMATED_MODEL


def test_measured_energy_is_compared_like_time() -> None:
    below = replace(synthetic.latency(1.0), metric="energy_j", provenance=Provenance.SAMPLED_POWER)
    above = replace(synthetic.latency(0.5, seed="1"), metric="energy_j")
    found = compare_series(side(below), side(above, CANDIDATE), "energy_j")
    assert found.verdict == "better"
    assert found.provenance is Provenance.SAMPLED_POWER


def test_an_invalid_side_makes_the_comparison_invalid() -> None:
    bad = synthetic.stopped(CANDIDATE, "invalid", "it ran in float32")
    wrong = Side(run=synthetic.run(), measurement=replace(bad, work="w"))
    found = compare_series(side(synthetic.latency(1.0)), wrong, "latency_s")
    assert (found.verdict, found.ratio) == ("invalid", None)
    assert found.reason is not None and "it ran in float32" in found.reason


def test_a_side_that_failed_passes_its_reason_on() -> None:
    bad = replace(synthetic.stopped(BASE, "failed", "killed by signal 9"), work="w")
    found = compare_series(Side(run=synthetic.run(), measurement=bad), latencies(1.0), "latency_s")
    assert (found.verdict, found.ratio) == ("inconclusive", None)
    assert found.reason is not None and "killed by signal 9" in found.reason


def test_every_difference_is_listed() -> None:
    here, there = synthetic.run(), synthetic.run(environment=synthetic.environment(cores=64))
    other = replace(BASE, batch=8, threads=2, technique="int8", backend="onnxruntime")
    with pytest.raises(NotComparable) as caught:
        check_comparable(here, there, BASE, other, "a", "b")
    text = str(caught.value)
    for part in ("machine cores (2 / 64)", "case batch (1 / 8)", "case threads (1 / 2)", "case work (a / b)"):
        assert part in text
    assert "backend" not in text.partition(" differ in ")[2]


@pytest.mark.parametrize(
    "software", [{"python": "3.11.4", "torch": "2.14.0", "onnxruntime": "1.31.1", "pynvml": None}]
)
def test_other_software_is_refused(software: dict[str, str | None]) -> None:
    there = replace(synthetic.environment(), software=software)
    with pytest.raises(NotComparable, match=r"software torch \(2.13.0\+cpu / 2.14.0\)"):
        compare_series(
            side(synthetic.latency(1.0)), latencies(1.0, run=synthetic.run(environment=there)), "latency_s"
        )


def test_other_conditions_do_not_matter() -> None:
    there = replace(synthetic.environment(), conditions={"load_1min": 9.0})
    check_comparable(synthetic.run(), synthetic.run(environment=there), BASE, CANDIDATE, "w", "w")


def test_two_meters_are_not_one() -> None:
    with pytest.raises(NotComparable, match=r"latency_s meter \(wall / cuda_events\)"):
        compare_series(
            side(synthetic.latency(1.0)),
            side(replace(synthetic.latency(1.0), meter="cuda_events"), CANDIDATE),
            "latency_s",
        )
