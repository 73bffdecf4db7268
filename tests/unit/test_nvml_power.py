from __future__ import annotations

import random

import pytest

from leanmark.errors import MeterError
from leanmark.meters.base import Reading
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_power import RATE_HZ, NvmlPower, from_average, from_instant
from leanmark.record import Provenance
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import INVALID_ARGUMENT, NOT_SUPPORTED, FakeGpu, FakeNvml, GpuFault
from leanmark.testing.power import Constant, SquareWave, Switched, energy_j

pytest.importorskip("pynvml")
INSTANT, AVERAGE = 186, 185


def measure(gpu: FakeGpu, seconds: float, clock: VirtualClock | None = None) -> Reading:
    clock = clock or VirtualClock()
    with FakeNvml([gpu], clock).installed():
        meter = NvmlPower(Gpu(0), clock=clock, repeat=clock.repeat)
        token = meter.start()
        clock.sleep(seconds)
        return meter.stop(token)()


def test_a_steady_load_is_known_well_where_the_average_can_be_read() -> None:
    reading = measure(FakeGpu(power=Constant(300.0)), 10.0)
    assert reading.value == pytest.approx(3000.0, rel=1e-4)
    assert reading.uncertainty is not None
    assert reading.uncertainty < 0.02 * reading.value
    assert reading.evidence is not None
    assert reading.evidence.source == "nvml.power_average"
    assert reading.evidence.samples == pytest.approx(10 * RATE_HZ, abs=2)
    assert NvmlPower.provenance is Provenance.SAMPLED_POWER


def test_without_an_average_most_of_the_time_was_not_seen() -> None:
    reading = measure(FakeGpu(power=Constant(400.0), averages=False), 10.0)
    assert reading.value == pytest.approx(4000.0, rel=1e-4)
    assert reading.evidence is not None
    assert reading.evidence.source == "nvml.power_instant"
    assert reading.uncertainty == pytest.approx(0.9 * 4000.0, rel=0.05)


def test_the_sensor_is_fooled_by_its_own_period_and_the_uncertainty_knows() -> None:
    wave = SquareWave(low_w=100.0, high_w=400.0, period_s=0.1, phase_s=0.05)
    blind = measure(FakeGpu(power=wave, averages=False), 10.0)
    assert blind.value == pytest.approx(4000.0, rel=0.01)  # 60 % more than there was
    assert blind.uncertainty is not None
    assert abs(blind.value - 2500.0) <= blind.uncertainty
    assert measure(FakeGpu(power=wave), 10.0).value == pytest.approx(2500.0, rel=0.01)


def test_square_waves_of_any_period_lie_within_the_uncertainty() -> None:
    """1,000 seeded runs for each sensor and for the better of the two."""
    random_ = random.Random(2024)
    held = {"instant": 0, "average": 0, "better": 0}
    for run in range(1000):
        period_s = (0.02, 0.05, 0.1, 0.25)[run] if run < 4 else 10 ** random_.uniform(-3, 1.5)
        wave = SquareWave(low_w=100.0, high_w=400.0, period_s=period_s, phase_s=random_.random() * period_s)
        start_s, seconds = 1000 + random_.random(), random_.uniform(10.0, 12.0)
        stop_s = start_s + seconds
        times = [start_s + n / RATE_HZ for n in range(1, int(seconds * RATE_HZ) + 1)]
        gpu = FakeGpu(power=wave)
        readings = {
            field: [(at_s, gpu.watts(at_s, field, 0) or 0.0) for at_s in times]
            for field in (INSTANT, AVERAGE)
        }
        truth_w = energy_j(wave, start_s, stop_s) / seconds
        instant = from_instant(readings[INSTANT], start_s, stop_s, 700.0)
        average = from_average(readings[AVERAGE], readings[INSTANT], start_s, stop_s)
        assert instant is not None
        assert average is not None
        better = min(instant, average, key=lambda one: one.doubt_w)
        for name, one in (("instant", instant), ("average", average), ("better", better)):
            held[name] += abs(one.watts - truth_w) <= one.doubt_w
    assert min(held.values()) >= 950, held


def test_what_was_drawn_before_the_window_settles_first() -> None:
    clock, load = VirtualClock(), Switched(60.0)
    load.switch(clock(), 300.0)
    reading = measure(FakeGpu(power=load), 10.0, clock)
    assert reading.value == pytest.approx(3000.0, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "complaint"),
    [
        (FakeGpu(power=Constant(0.0)), "shows 0 W"),
        (FakeGpu(power=Constant(9.0), faults=(GpuFault(kind="error", start_s=1004.0),)), "GPU is lost"),
    ],
)
def test_no_power_is_an_error_and_not_a_zero(gpu: FakeGpu, complaint: str) -> None:
    with pytest.raises(MeterError, match=complaint):
        measure(gpu, 10.0)


def test_a_window_without_samples_is_no_measurement() -> None:
    with pytest.raises(MeterError, match="fewer than two samples"):
        measure(FakeGpu(power=Constant(300.0)), 0.1)


def test_an_unknown_limit_leaves_the_uncertainty_unknown() -> None:
    fault = GpuFault(kind="error", calls=("nvmlDeviceGetEnforcedPowerLimit",), code=NOT_SUPPORTED)
    reading = measure(FakeGpu(power=Constant(300.0), averages=False, faults=(fault,)), 10.0)
    assert reading.uncertainty is None


def test_a_board_without_power_sensors_says_so() -> None:
    clock = VirtualClock()
    gpu = FakeGpu(
        power=Constant(1.0),
        faults=(GpuFault(kind="error", calls=("nvmlDeviceGetFieldValues",), code=NOT_SUPPORTED),),
    )
    with FakeNvml([gpu], clock).installed():
        assert "power: Not Supported" in (NvmlPower(Gpu(0), clock=clock).unavailable() or "")


@pytest.mark.parametrize("field", ["field 185", "field 186"])
def test_a_field_that_fails_in_a_call_that_succeeds_is_no_shorter_window(field: str) -> None:
    lost = GpuFault(kind="error", calls=(field,), start_s=1004.0)
    with pytest.raises(MeterError, match="power: GPU is lost"):
        measure(FakeGpu(power=Constant(300.0), faults=(lost,)), 10.0)


def test_a_driver_that_does_not_know_a_field_has_no_such_sensor() -> None:
    unknown = GpuFault(kind="error", calls=("field 185",), code=INVALID_ARGUMENT)
    reading = measure(FakeGpu(power=Constant(300.0), faults=(unknown,)), 10.0)
    assert reading.evidence is not None
    assert reading.evidence.source == "nvml.power_instant"
    assert reading.value == pytest.approx(3000.0, rel=1e-3)
