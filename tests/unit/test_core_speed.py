"""How fast the core is at a moment, and what becomes of times where that changed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from leanmark.machine import core_speed as reading
from leanmark.reading import tabulate
from leanmark.reading.compare import Side, compare_series
from leanmark.record import Case, Comparison, Measurement, Series
from leanmark.report.notes import legend
from leanmark.statistics import core_speed

from . import synthetic

CASE = Case(workload="mlp", technique="prune", phase="inference")
FULL, BESIDE_A_NEIGHBOUR = 1.25e9, 0.9e9


def at(series: Series, *speeds: float | None) -> Series:
    """The speeds of the core in turn, process by process."""
    blocks = (replace(b, hash_bytes_per_s=speeds[b.process % len(speeds)]) for b in series.blocks)
    return replace(series, blocks=tuple(blocks))


def in_rounds(series: Series, *speeds: float) -> Series:
    """The speeds of the core in turn, round by round."""
    blocks = (replace(b, hash_bytes_per_s=speeds[b.round % len(speeds)]) for b in series.blocks)
    return replace(series, blocks=tuple(blocks))


def compared(below: Series, above: Series, *, contest: str = "later") -> Comparison:
    def side(series: Series, name: str) -> Side:
        measurement = Measurement(
            run=name, case=CASE, pass_name="latency", status="ok", work="w", contest=name, series=(series,)
        )
        return Side(run=synthetic.run(id=name), measurement=measurement)

    return compare_series(side(below, "before"), side(above, contest), "latency_s")


def test_a_core_hashes_at_a_speed_that_a_processor_can_have() -> None:
    assert 1e7 < reading.hash_bytes_per_s() < 1e11


def test_each_core_that_may_be_used_is_looked_at_and_left() -> None:
    allowed = os.sched_getaffinity(0)
    speeds = reading.of_each_core(0.01)
    assert speeds.keys() == allowed == os.sched_getaffinity(0)
    assert all(1e7 < speed < 1e11 for speed in speeds.values())


def test_where_threads_cannot_choose_a_core_none_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    assert reading.of_each_core(0.01) == {}


def test_a_core_is_slowed_below_nine_tenths_of_its_best() -> None:
    assert reading.slowed_share([1.0, 0.95, 0.91, 0.89]) == 0.25
    assert reading.slowed_share([]) is None


def test_the_change_is_that_of_the_typical_process_on_each_side() -> None:
    before, after = at(synthetic.latency(1.0), FULL), at(synthetic.latency(1.0), FULL / 2)
    assert core_speed.change(before, after) == pytest.approx(0.5)
    half_of_four = at(synthetic.latency(1.0, processes=4), FULL, FULL / 4)
    assert core_speed.change(before, half_of_four) == pytest.approx(0.5)
    assert core_speed.change(before, synthetic.latency(1.0)) is None


def test_two_runs_on_a_core_that_was_slowed_in_one_are_not_decided() -> None:
    """1.3 times as long on a core of 0.72 of the speed: no regression is shown, nor that there is none."""
    before, after = synthetic.latency(1.0), synthetic.latency(1.3, seed="1")
    assert compared(before, after).verdict == "worse"
    found = compared(at(before, FULL), at(after, BESIDE_A_NEIGHBOUR))
    assert found.ratio is not None
    assert found.ratio.low < 0.7 < 1.3 < found.ratio.high
    assert (found.verdict, found.more_processes) == ("inconclusive", None)
    assert found.reason == (
        "the core itself was 0.72× as fast as before, and the interval allows for that: only one run of both "
        "can settle it"
    )


def test_a_difference_beyond_what_the_core_explains_is_still_decided() -> None:
    before, after = synthetic.latency(1.0), synthetic.latency(2.5, seed="1")
    found = compared(at(before, FULL), at(after, BESIDE_A_NEIGHBOUR))
    assert found.verdict == "worse"
    assert found.reason == "the core itself was 0.72× as fast as before, and the interval allows for that"
    faster = compared(at(after, BESIDE_A_NEIGHBOUR), at(before, FULL))
    assert faster.verdict == "better"
    assert faster.ratio is not None
    assert faster.ratio.high == pytest.approx(0.4 * (FULL / BESIDE_A_NEIGHBOUR) ** 2, rel=0.03)


def test_a_core_as_fast_as_before_changes_next_to_nothing() -> None:
    before, after = synthetic.latency(1.0), synthetic.latency(1.3, seed="1")
    plain, found = compared(before, after), compared(at(before, FULL), at(after, 0.995 * FULL))
    assert (found.verdict, found.reason) == (plain.verdict, None) == ("worse", None)
    assert plain.ratio is not None and found.ratio is not None
    assert found.ratio.low / plain.ratio.low == pytest.approx(0.995**2)
    assert found.ratio.high == plain.ratio.high


def test_rounds_of_one_contest_need_no_allowance() -> None:
    before, after = synthetic.latency(1.0), synthetic.latency(1.3, seed="1")
    with_speeds = at(before, FULL), at(after, BESIDE_A_NEIGHBOUR)
    assert compared(*with_speeds, contest="before") == compared(before, after, contest="before")


@pytest.mark.parametrize("speeds", [(FULL,), (FULL, FULL, FULL, FULL, BESIDE_A_NEIGHBOUR)])
def test_a_table_says_how_often_the_core_was_slowed(speeds: tuple[float, ...]) -> None:
    records = synthetic.records()
    measurements = tuple(
        replace(one, series=tuple(in_rounds(each, *speeds) for each in one.series))
        for one in records.measurements
    )
    told = legend(tabulate.build([replace(records, measurements=measurements)]))
    found = [line for line in told if line.startswith("In 20% of the blocks the core had less than 90% of")]
    assert len(found) == (len(speeds) > 1)
    assert any("of the blocks the core" in line for line in told) == (len(speeds) > 1)
