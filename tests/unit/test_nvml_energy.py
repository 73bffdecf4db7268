from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.base import Reading
from leanmark.meters.energy import cross_check
from leanmark.meters.nvml import Gpu, is_ours
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.nvml_power import NvmlPower
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import NOT_SUPPORTED, FakeGpu, FakeNvml, GpuFault
from leanmark.testing.power import Constant, Switched

pytest.importorskip("pynvml")


@contextmanager
def machine(
    *gpus: FakeGpu, clock: VirtualClock | None = None, device: int | str = 0, **options: int
) -> Iterator[tuple[VirtualClock, NvmlEnergy]]:
    clock = clock or VirtualClock()
    with FakeNvml(gpus, clock, **options).installed():  # type: ignore[arg-type]
        gpu = Gpu(device, is_ours=lambda process: process == 1)
        yield clock, NvmlEnergy(gpu, clock=clock, sleep=clock.sleep, repeat=clock.repeat)


def measure(gpu: FakeGpu, seconds: float) -> Reading:
    with machine(gpu) as (clock, meter):
        token = meter.start()
        clock.sleep(seconds)
        return meter.stop(token)()


@pytest.mark.parametrize("period_s", [0.02, 0.033, 0.05, 0.1])
@pytest.mark.parametrize(("seconds", "tolerance"), [(5.0, 0.02), (1.0, 0.01)])
def test_windows_are_near_the_truth(period_s: float, seconds: float, tolerance: float) -> None:
    random_ = random.Random(3)
    for _ in range(10):
        gpu = FakeGpu(power=Constant(300.0), update_s=period_s, phase_s=random_.random() * period_s)
        reading = measure(gpu, seconds + random_.random() * period_s)
        assert reading.value / reading.duration_s == pytest.approx(300.0, rel=tolerance)
        assert reading.uncertainty is not None
        assert abs(reading.value - 300.0 * reading.duration_s) <= reading.uncertainty
        assert 0.9 * seconds - 2 * period_s < reading.duration_s < seconds + period_s


def test_what_was_drawn_before_the_window_is_not_in_it() -> None:
    clock, load = VirtualClock(), Switched(60.0)
    with machine(FakeGpu(power=load), clock=clock) as (_, meter):
        assert meter.unavailable() is None
        meter.stop(_opened(meter, clock))()
        load.switch(clock(), 300.0)
        reading = meter.stop(_opened(meter, clock))()
    assert reading.value / reading.duration_s == pytest.approx(300.0, rel=0.01)


def _opened(meter: NvmlEnergy, clock: VirtualClock):  # type: ignore[no-untyped-def]
    token = meter.start()
    clock.sleep(1.0)
    return token


def test_the_window_is_sized_by_the_update_period_that_was_found() -> None:
    with machine(FakeGpu(power=Constant(300.0), update_s=0.2)) as (_, meter):
        meter.start()
    assert meter.min_window_s == pytest.approx(2.0, rel=0.01)


def test_the_evidence_is_in_the_reading() -> None:
    evidence = measure(FakeGpu(power=Constant(300.0)), 2.0).evidence
    assert evidence is not None
    assert (evidence.source, evidence.aligned) == ("nvml.total_energy", True)
    assert evidence.distinct >= 15
    assert evidence.update_period_s == pytest.approx(0.1, abs=1e-3)
    assert list(evidence.parts) == ["GPU 0 (NVIDIA H100 80GB HBM3)"]


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (GpuFault(kind="stuck"), "stuck"),
        (GpuFault(kind="stuck", start_s=1001.5), "showed"),
        (GpuFault(kind="reset", start_s=1002.0), "was reset"),
        (GpuFault(kind="error", start_s=1003.0), "GPU is lost"),
        (
            GpuFault(kind="error", calls=("nvmlDeviceGetTotalEnergyConsumption",), code=NOT_SUPPORTED),
            "energy counter: Not Supported",
        ),
    ],
)
def test_a_fault_is_an_error_that_names_the_gpu(fault: GpuFault, complaint: str) -> None:
    with pytest.raises(MeterError, match=r"GPU 0 \(NVIDIA H100.*" + complaint):
        measure(FakeGpu(power=Constant(300.0), faults=(fault,)), 5.0)


def test_a_gpu_that_is_lost_after_the_stop_was_still_measured() -> None:
    lost = GpuFault(kind="error", start_s=1003.0, calls=("nvmlDeviceGetTotalEnergyConsumption",))
    with machine(FakeGpu(power=Constant(300.0), faults=(lost,))) as (clock, meter):
        token = meter.start()
        clock.sleep(2.0)
        stopped = meter.stop(token)
        clock.sleep(10.0)
        reading = stopped()
    assert reading.duration_s == pytest.approx(1.85, abs=0.15)
    assert reading.value / reading.duration_s == pytest.approx(300.0, rel=0.01)


def test_a_window_without_two_updates_is_no_measurement() -> None:
    with pytest.raises(MeterError, match="too short"):
        measure(FakeGpu(power=Constant(300.0)), 0.15)
    with pytest.raises(StuckCounter, match="too short"):
        measure(FakeGpu(power=Constant(300.0)), 0.001)


def test_a_lost_gpu_does_not_hinder_the_next_window() -> None:
    fault = GpuFault(kind="error", start_s=1003.0, stop_s=1010.0)
    with machine(FakeGpu(power=Constant(300.0), faults=(fault,))) as (clock, meter):
        token = meter.start()
        clock.sleep(5.0)
        with pytest.raises(MeterError, match="lost"):
            meter.stop(token)()
        clock.sleep(10.0)
        reading = meter.stop(_opened(meter, clock))()
    assert reading.value / reading.duration_s == pytest.approx(300.0, rel=0.01)


@pytest.mark.parametrize(
    ("gpu", "code"),
    [
        (FakeGpu(power=Constant(300.0), mig=True), "shared-board"),
        (FakeGpu(power=Constant(300.0), processes=(1, 4711)), "shared-gpu"),
        (
            FakeGpu(power=Constant(300.0), module_power=Constant(500.0), name="NVIDIA GH200 480GB"),
            "module-scope",
        ),
        (
            FakeGpu(
                power=Constant(300.0),
                faults=(
                    GpuFault(
                        kind="error", calls=("nvmlDeviceGetComputeRunningProcesses_v3",), code=NOT_SUPPORTED
                    ),
                ),
            ),
            "shared-gpu",
        ),
    ],
)
def test_energy_that_is_not_only_ours_is_said_so(gpu: FakeGpu, code: str) -> None:
    reading = measure(gpu, 2.0)
    assert [finding.code for finding in reading.findings] == [code]
    watts = 500.0 if gpu.module_power else 300.0
    assert reading.value / reading.duration_s == pytest.approx(watts, rel=0.01)


def test_a_module_is_checked_against_the_power_of_the_module() -> None:
    gpu = FakeGpu(power=Constant(300.0), module_power=Constant(500.0), name="NVIDIA GH200 480GB")
    with machine(gpu) as (clock, meter):
        other = meter.second_opinion()
        tokens = meter.start(), other.start()
        clock.sleep(10.0)
        counted, sampled = meter.stop(tokens[0])(), other.stop(tokens[1])()
        alone = NvmlPower(Gpu(0), clock=clock, repeat=clock.repeat)
        token = alone.start()
        clock.sleep(10.0)
        of_gpu = alone.stop(token)()
    assert sampled.value / sampled.duration_s == pytest.approx(500.0, rel=1e-3)
    assert cross_check(counted, sampled) is None
    assert of_gpu.value / of_gpu.duration_s == pytest.approx(300.0, rel=1e-3)


def test_a_process_of_ours_is_looked_up_once() -> None:
    asked: list[int] = []

    def is_ours(process: int) -> bool:
        asked.append(process)
        return process == 1

    clock = VirtualClock()
    with FakeNvml([FakeGpu(power=Constant(300.0), processes=(1, 4711))], clock).installed():
        gpu = Gpu(0, is_ours=is_ours)
        gpu.open()
        found = [gpu.findings() for _ in range(3)]
    assert asked == [1, 4711, 4711, 4711]
    assert {one.code for findings in found for one in findings} == {"shared-gpu"}


def test_a_meter_that_was_closed_can_be_started_again() -> None:
    with machine(FakeGpu(power=Constant(300.0))) as (clock, meter):
        for _ in range(2):
            token = meter.start()
            clock.sleep(2.0)
            reading = meter.stop(token)()
            assert reading.value / reading.duration_s == pytest.approx(300.0, rel=0.01)
            meter.close()


def test_our_own_processes_are_no_doubt() -> None:
    assert measure(FakeGpu(power=Constant(300.0), processes=(1, 1)), 2.0).findings == ()
    assert is_ours(os.getpid())
    assert not is_ours(os.getppid())


def test_a_driver_that_does_not_answer_is_a_reason() -> None:
    with machine(FakeGpu(power=Constant(1.0)), init_error=9) as (_, meter):
        assert meter.unavailable() == "GPU 0: driver: Driver Not Loaded"


def test_an_old_library_without_the_symbol_is_a_reason() -> None:
    clock = VirtualClock()
    missing = frozenset({"nvmlDeviceGetTotalEnergyConsumption"})
    with FakeNvml([FakeGpu(power=Constant(1.0))], clock, missing=missing).installed():
        assert "Function Not Found" in (NvmlEnergy(Gpu(0), clock=clock).unavailable() or "")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", "GPU 1"),
        ("GPU-b,GPU-a", "GPU GPU-b"),
        ("MIG-5c89", "only the board as a whole"),
        ("", "no GPU may be used"),
        ("7", "GPU 7: look-up: Invalid Argument"),
        ("GPU-c", "GPU GPU-c: look-up: Not Found"),
    ],
)
def test_it_reads_the_gpu_that_cuda_would_use(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    clock = VirtualClock()
    gpus = [FakeGpu(power=Constant(watts), uuid=uuid) for watts, uuid in ((100.0, "GPU-a"), (200.0, "GPU-b"))]
    with FakeNvml(gpus, clock).installed():
        meter = NvmlEnergy(clock=clock, sleep=clock.sleep, repeat=clock.repeat)
        reason = meter.unavailable()
        if reason is not None:
            assert expected in reason
            return
        reading = meter.stop(_opened(meter, clock))()
    assert reading.value / reading.duration_s == pytest.approx(200.0, rel=0.01)
    assert reading.evidence is not None
    assert next(iter(reading.evidence.parts)).startswith(expected)
