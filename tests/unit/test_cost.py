from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leanmark.errors import MeterError, StuckCounter
from leanmark.measuring.cost import CostMeter
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.meters.energy import choose
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.rapl import Rapl
from leanmark.protocol.messages import Notice, Ready
from leanmark.record import DOMAIN_LOST, Finding, ModelFacts, Provenance
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.power import Constant, Switched
from leanmark.testing.powercap import FakePowercap, FakeZone, Fault

BEGINS, ENDED = Notice("begins"), Notice("ended")
READY = Ready(
    work="w", time_s=2.0, epochs=20, steps=900, model={}, refusals={}, verified={}, doubts=(), work_parts={}
)  # fmt: skip


class Scripted(Meter[str]):
    """Covers 1.6 s of the two; ``log`` says what it was asked."""

    unit = "j"
    scope = "device"
    provenance = Provenance.MEASURED_COUNTER
    resolution = 0.0
    min_window_s = 0.0

    def __init__(self, starts: bool = True, stops: bool = True) -> None:
        self.log: list[str] = []
        self._starts, self._stops = starts, stops

    def unavailable(self) -> str | None:
        return None

    def start(self) -> str:
        self.log.append("start")
        if not self._starts:
            raise MeterError("GPU 0: energy counter: GPU is lost")
        return "token"

    def stop(self, token: str) -> Stopped:
        assert token == "token"
        self.log.append("stop")
        return self._reading

    def _reading(self) -> Reading:
        if not self._stops:
            raise StuckCounter("it showed 7 for 2 s")
        return Reading(
            value=160.0, duration_s=1.6, uncertainty=0.8, evidence=Evidence(source="nvml", gain=0.1)
        )


def metered(meter: Meter[str] | None, *notices: Notice) -> CostMeter:
    with CostMeter(meter) as cost:
        for notice in notices:
            cost.notice(notice)
    return cost


def test_the_energy_is_that_of_the_time_between_the_notices() -> None:
    meter = Scripted()
    cost = metered(meter, BEGINS, ENDED).cost(READY)
    assert meter.log == ["start", "stop"]
    assert (cost.time_s, cost.energy_j) == (2.0, 200.0)  # 100 W for 2 s, though only 1.6 s were covered
    assert cost.energy_uncertainty_j == pytest.approx((1.0**2 + 20.0**2) ** 0.5)
    assert (cost.energy_provenance, cost.energy_reason) == (Provenance.MEASURED_COUNTER, None)
    assert (cost.epochs, cost.steps) == (20, 900)


@pytest.mark.parametrize(
    ("meter", "reason"),
    [
        (Scripted(starts=False), "GPU 0: energy counter: GPU is lost"),
        (Scripted(stops=False), "it showed 7 for 2 s"),
        (None, "no meter of energy is available"),
    ],
)
def test_a_meter_that_fails_costs_its_number_and_nothing_else(meter: Scripted | None, reason: str) -> None:
    cost = metered(meter, BEGINS, ENDED).cost(READY)
    assert (cost.time_s, cost.energy_j, cost.energy_reason) == (2.0, None, reason)
    assert cost.energy_provenance is Provenance.UNAVAILABLE


def test_a_meter_is_stopped_where_the_worker_dies_in_between() -> None:
    meter = Scripted()
    cost = metered(meter, BEGINS).cost(READY)
    assert meter.log == ["start", "stop"]
    assert cost.energy_j is None


def test_what_was_never_applied_has_no_energy() -> None:
    meter = Scripted()
    ready = replace(READY, epochs=None, steps=None)
    assert metered(meter).cost(ready).energy_reason == "nothing was applied"
    assert meter.log == []


def test_writing_for_a_backend_is_metered_apart() -> None:
    model = ModelFacts(parameters=1, macs=1, size_bytes=1)
    ready = replace(READY, model={"eager": model, "onnxruntime": model}, build_s={"onnxruntime": 0.5})
    meter = Scripted()
    about = [Notice("begins", "onnxruntime"), Notice("ended", "onnxruntime")]
    costs = metered(meter, BEGINS, ENDED, *about).costs(ready)
    assert meter.log == ["start", "stop"] * 2
    assert (costs["eager"].energy_j, costs["eager"].build_s) == (200.0, None)
    assert (costs["onnxruntime"].energy_j, costs["onnxruntime"].build_s) == (200.0, 0.5)
    assert costs["onnxruntime"].build_j == 50.0
    assert costs["onnxruntime"].build_uncertainty_j == pytest.approx((0.25**2 + 5.0**2) ** 0.5)


def test_writing_without_a_meter_has_a_time_alone() -> None:
    model = ModelFacts(parameters=1, macs=1, size_bytes=1)
    ready = replace(READY, model={"onnxruntime": model}, build_s={"onnxruntime": 0.5})
    (cost,) = metered(None, BEGINS, ENDED).costs(ready).values()
    assert (cost.build_s, cost.build_j, cost.build_uncertainty_j) == (0.5, None, None)


def test_a_part_of_the_machine_that_told_nothing_is_named(tmp_path: Path) -> None:
    """The memory's counter stands still for the millisecond that applying took."""
    clock = VirtualClock(1000.0)
    still = Fault(kind="stuck", start_s=999.99, stop_s=1000.0055)
    zones = [
        FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(50.0)),
        FakeZone(folder="intel-rapl:0:0", name="dram", power=Constant(5.0), faults=(still,)),
    ]
    tree = FakePowercap(tmp_path, zones, clock)
    tree.write()
    cost = CostMeter(Rapl(tmp_path, read=tree.read, clock=clock, repeat=clock.repeat))
    for seconds, doubts in ((5e-3, 1), (1.0, 0)):
        cost.notice(BEGINS)
        clock.sleep(seconds)
        cost.notice(ENDED)
        message = "the energy of making it is without package-0/dram, whose counter told nothing in that time"
        said = [Finding(code=DOMAIN_LOST, message=message, without="package-0/dram")]
        assert list(cost.doubts(replace(READY, time_s=seconds))) == said[:doubts]
        assert cost.cost(replace(READY, time_s=seconds)).energy_j == pytest.approx(
            seconds * (50.0 if doubts else 55.0), rel=0.3 if doubts else 0.01
        )


def test_a_training_run_on_a_gpu_has_the_joules_of_its_window() -> None:
    """60 W, then 300 W for as long as a worker trains, which begins as soon as it has said so."""
    pytest.importorskip("pynvml")
    clock, load = VirtualClock(), Switched(60.0)
    with FakeNvml([FakeGpu(power=load, update_s=0.1)], clock).installed():
        tried = NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat)
        meter = choose("gpu", {"nvml_energy": tried}, clock.sleep).meter
        assert meter is tried
        with CostMeter(meter) as cost:
            began_s = clock.now_s
            load.switch(began_s, 300.0)
            cost.notice(BEGINS)
            assert clock.now_s - began_s < 1e-3  # how often the counter changes is known since the choice
            clock.sleep(5.0)
            load.switch(clock.now_s, 60.0)
            cost.notice(ENDED)
        found = cost.energy(5.0)
    assert found is not None
    assert (found.meter, found.scope, found.gain) == ("nvmlenergy", "device", 0.10)
    assert found.doubt_j is not None
    assert abs(found.joules - 1500.0) <= found.doubt_j < 15.0
