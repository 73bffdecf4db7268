from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from leanmark.meters.base import Meter, Reading
from leanmark.meters.codecarbon import CodeCarbon
from leanmark.meters.energy import best_energy_meter, choose, cross_check
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.nvml_power import NvmlPower
from leanmark.meters.rapl import Rapl
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import NOT_SUPPORTED, FakeGpu, FakeNvml, GpuFault
from leanmark.testing.power import Constant
from leanmark.testing.powercap import FakePowercap, FakeZone, Fault

pytest.importorskip("pynvml")
NO_COUNTER = GpuFault(kind="error", calls=("nvmlDeviceGetTotalEnergyConsumption",), code=NOT_SUPPORTED)


def rapl(root: Path, clock: VirtualClock, faults: Sequence[Fault] = ()) -> Meter[Any]:
    zone = FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(50.0), faults=tuple(faults))
    tree = FakePowercap(root, [zone], clock)
    tree.write()
    return Rapl(root, read=tree.read, clock=clock, repeat=clock.repeat)


def gpu_meters(clock: VirtualClock) -> dict[str, Meter[Any]]:
    return {
        "nvml_power": NvmlPower(Gpu(0), clock=clock, repeat=clock.repeat),
        "nvml_energy": NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat),
    }


def test_a_counter_is_chosen_before_an_estimate(tmp_path: Path) -> None:
    clock = VirtualClock()
    meters: dict[str, Meter[Any]] = {"codecarbon": CodeCarbon(), "rapl": rapl(tmp_path, clock)}
    choice = choose("processor", meters, clock.sleep)
    assert choice.meter is meters["rapl"]
    assert choice.passed_over == {}


@pytest.mark.parametrize(("kind", "reason"), [("permission", "chmod a+r"), ("stuck", "is stuck")])
def test_a_counter_that_cannot_be_believed_is_passed_over_with_its_reason(
    tmp_path: Path, kind: Literal["permission", "stuck"], reason: str
) -> None:
    clock = VirtualClock()
    meters: dict[str, Meter[Any]] = {
        "rapl": rapl(tmp_path, clock, [Fault(kind=kind)]),
        "codecarbon": CodeCarbon(),
    }
    choice = choose("processor", meters, clock.sleep)
    assert choice.meter is meters["codecarbon"]
    assert reason in choice.passed_over["rapl"]


def test_a_gpu_without_a_counter_is_sampled() -> None:
    clock = VirtualClock()
    with FakeNvml([FakeGpu(power=Constant(300.0), faults=(NO_COUNTER,))], clock).installed():
        meters = gpu_meters(clock)
        choice = choose("gpu", meters, clock.sleep)
    assert choice.meter is meters["nvml_power"]
    assert "Not Supported" in choice.passed_over["nvml_energy"]


def test_where_nothing_works_there_is_no_meter() -> None:
    clock = VirtualClock()
    with FakeNvml([], clock, init_error=9).installed():
        choice = choose("gpu", gpu_meters(clock), clock.sleep)
    assert choice.meter is None
    assert set(choice.passed_over) == {"nvml_energy", "nvml_power"}


def test_there_is_always_something_for_the_processor() -> None:
    meter = best_energy_meter("processor")
    assert meter is not None
    meter.close()


@pytest.mark.parametrize(("watts", "agrees"), [(300.0, True), (320.0, True), (350.0, False), (180.0, False)])
def test_counter_and_power_are_held_against_each_other(watts: float, agrees: bool) -> None:
    finding = cross_check(
        Reading(value=3000.0, duration_s=10.0), Reading(value=2.0 * watts, duration_s=2.0, uncertainty=4.0)
    )
    assert (finding is None) == agrees
    if finding is not None:
        assert finding.code == "counter-against-power"
        assert "one of them is wrong" in finding.message


def test_a_difference_that_aliasing_can_explain_is_flagged_as_that() -> None:
    finding = cross_check(
        Reading(value=2500.0, duration_s=10.0), Reading(value=4000.0, duration_s=10.0, uncertainty=3000.0)
    )
    assert finding is not None
    assert "can explain" in finding.message
    assert "-38%" in finding.message


def test_the_same_board_agrees_with_itself() -> None:
    clock = VirtualClock()
    with FakeNvml([FakeGpu(power=Constant(300.0))], clock).installed():
        meters = gpu_meters(clock)
        tokens = {name: meter.start() for name, meter in meters.items()}
        clock.sleep(10.0)
        readings = {name: meters[name].stop(token)() for name, token in tokens.items()}
    assert cross_check(readings["nvml_energy"], readings["nvml_power"]) is None


def test_without_permission_one_line_says_how_and_the_next_meter_is_taken(tmp_path: Path) -> None:
    clock = VirtualClock()
    closed = rapl(tmp_path, clock, [Fault(kind="permission")])
    meter = choose("processor", {"rapl": closed, "codecarbon": CodeCarbon()}, clock.sleep).meter
    assert isinstance(meter, CodeCarbon)
    reason = meter.passed_over["rapl"]
    assert "\n" not in reason
    assert str(tmp_path / "intel-rapl:0" / "energy_uj") in reason
    assert f"sudo chmod a+r {tmp_path}/intel-rapl*/energy_uj" in reason
