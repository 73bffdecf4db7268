from __future__ import annotations

import random
from typing import Literal

import pytest

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.base import Reading
from leanmark.meters.window import Aligned, measure_aligned, per_step, update_period
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, GpuFault
from leanmark.testing.power import Constant, SquareWave


def board(clock: VirtualClock, gpu: FakeGpu) -> int:
    """The counter, read in 20 µs."""
    clock.sleep(20e-6)
    return gpu.counter_mj(clock())


def aligned(gpu: FakeGpu, *, step_s: float, seconds: float, start_s: float = 1000.0) -> Aligned:
    clock = VirtualClock(start_s)
    return measure_aligned(
        lambda steps: clock.sleep(steps * step_s),
        lambda: board(clock, gpu),
        unit_j=1e-3,
        period_s=gpu.update_s,
        seconds=seconds,
        clock=clock,
    )


@pytest.mark.parametrize("period_s", [0.02, 0.035, 0.05, 0.1])
def test_the_update_period_is_found(period_s: float) -> None:
    clock = VirtualClock()
    gpu = FakeGpu(power=Constant(60.0), update_s=period_s, phase_s=0.0123)
    found = update_period(lambda: board(clock, gpu), clock, clock.sleep)
    assert found == pytest.approx(period_s, abs=1e-3)


def test_probing_a_stuck_counter_ends() -> None:
    clock = VirtualClock()
    with pytest.raises(StuckCounter):
        update_period(lambda: 7, clock, clock.sleep)


@pytest.mark.parametrize("period_s", [0.02, 0.05, 0.1])
def test_a_second_between_updates_is_within_one_percent(period_s: float) -> None:
    random_ = random.Random(7)
    for _ in range(50):
        step_s = 10 ** random_.uniform(-5, -2)
        start_s = 1000 + random_.random()
        gpu = FakeGpu(power=Constant(300.0), update_s=period_s, phase_s=random_.random() * period_s)
        found = aligned(gpu, step_s=step_s, seconds=1.0, start_s=start_s)
        truth = 300.0 * step_s
        assert found.joules_per_step == pytest.approx(truth, rel=0.01)
        assert abs(found.joules_per_step - truth) <= found.uncertainty_j / found.steps
        assert found.duration_s >= 1.0


def test_steps_longer_than_an_update_are_counted_in_parts() -> None:
    gpu = FakeGpu(power=Constant(300.0), update_s=0.02)
    found = aligned(gpu, step_s=0.15, seconds=5.0)
    assert found.joules_per_step == pytest.approx(45.0, abs=found.uncertainty_j / found.steps)
    assert found.uncertainty_j / found.joules < 0.01


def test_a_load_that_moves_within_each_step_is_measured_too() -> None:
    gpu = FakeGpu(power=SquareWave(low_w=100.0, high_w=400.0, period_s=0.004), update_s=0.1)
    assert aligned(gpu, step_s=0.004, seconds=1.0).joules_per_step == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("kind", "error"), [("stuck", StuckCounter), ("reset", MeterError)])
def test_a_counter_that_fails_during_the_work(
    kind: Literal["stuck", "reset"], error: type[MeterError]
) -> None:
    gpu = FakeGpu(power=Constant(300.0), faults=(GpuFault(kind=kind, start_s=1000.5),))
    with pytest.raises(error):
        aligned(gpu, step_s=1e-3, seconds=3.0)


def test_energy_per_step_is_power_times_the_time_of_a_step() -> None:
    reading = Reading(value=90.0, duration_s=0.9, uncertainty=1.8)
    assert per_step(reading, steps=50, wall_s=1.0) == pytest.approx((2.0, 0.04))
    assert per_step(Reading(value=90.0, duration_s=0.9), steps=50, wall_s=1.0)[1] is None
