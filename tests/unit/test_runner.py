"""The timing loop on a scripted clock: every number below is exact."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, cycle, repeat

import pytest

from leanmark.worker import runner


class ScriptedClock:
    """Time that passes only while a step runs; CPU time passes at half its pace."""

    def __init__(self, steps_s: Iterator[float]) -> None:
        self.now = 100.0
        self.steps = 0
        self._steps_s = steps_s

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 2

    def step(self) -> None:
        self.steps += 1
        self.now += next(self._steps_s)


def scripted(monkeypatch: pytest.MonkeyPatch, *steps_s: float, then: float) -> ScriptedClock:
    clock = ScriptedClock(chain(steps_s, repeat(then)))
    monkeypatch.setattr(runner, "time", clock)
    return clock


def test_a_block_is_timed_from_its_first_step_to_its_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, then=0.25)
    block = runner.run_block(clock.step, 4)
    assert (block.start_s, block.wall_s, block.cpu_s) == (100.0, 1.0, 0.5)


def test_every_step_of_a_sample_is_timed_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, 0.5, 2.0, then=0.25)
    assert list(runner.run_samples(clock.step, 4)) == [0.5, 2.0, 0.25, 0.25]
    assert clock.steps == 4


def test_no_samples_take_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, then=0.25)
    assert list(runner.run_samples(clock.step, 0)) == []
    assert clock.steps == 0


def test_a_window_ends_with_the_step_that_passes_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, then=0.25)
    window = runner.run_window(clock.step, 0.6)
    assert (window.steps, window.wall_s) == (3, 0.75)


def test_a_window_shorter_than_a_step_still_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, then=2.0)
    assert runner.run_window(clock.step, 0.1).steps == 1


def test_a_slow_first_call_does_not_size_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, 3.0, 0.004, then=0.001)
    warm = runner.warm_up(clock.step, limit_s=10.0, block_s=0.008)
    assert warm.step_s == pytest.approx(0.001)
    assert warm.loops == 8
    assert warm.steady


def test_what_disturbs_warming_up_does_not_shrink_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ScriptedClock(cycle((0.001, 0.002, 0.002, 0.002, 0.002)))
    monkeypatch.setattr(runner, "time", clock)
    warm = runner.warm_up(clock.step, limit_s=10.0, block_s=0.004)
    assert warm.step_s == pytest.approx(0.002)
    assert warm.loops == 4


def test_a_block_never_gets_shorter_than_the_clock_can_bear(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, then=1e-6)
    assert runner.warm_up(clock.step, limit_s=10.0, block_s=1e-9).loops == 1000


@pytest.mark.parametrize(("step_s", "steps"), [(0.25, 10), (2.0, 6)])
def test_a_step_too_slow_for_two_windows_is_still_found_steady(
    step_s: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = scripted(monkeypatch, then=step_s)
    before = clock.perf_counter()
    warm = runner.warm_up(clock.step, limit_s=1.0, block_s=0.008)
    assert warm == runner.WarmUp(step_s=step_s, loops=1, steady=True)
    assert clock.perf_counter() - before == pytest.approx(steps * step_s)


def test_a_slow_step_may_begin_slower_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = scripted(monkeypatch, *[0.3] * 4, then=0.25)
    before = clock.perf_counter()
    assert runner.warm_up(clock.step, limit_s=1.0, block_s=0.008).steady
    assert clock.perf_counter() - before == pytest.approx(4 * 0.3 + 11 * 0.25)


def test_a_slow_step_that_gets_slower_is_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ScriptedClock(0.25 * 1.05**n for n in range(10_000))
    monkeypatch.setattr(runner, "time", clock)
    assert not runner.warm_up(clock.step, limit_s=1.0, block_s=0.008).steady


def test_what_keeps_changing_is_reported_as_not_steady(monkeypatch: pytest.MonkeyPatch) -> None:
    slowing = (0.01 * 1.05**n for n in range(10_000))
    clock = ScriptedClock(slowing)
    monkeypatch.setattr(runner, "time", clock)
    warm = runner.warm_up(clock.step, limit_s=1.0, block_s=0.01)
    assert not warm.steady
