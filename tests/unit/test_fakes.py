"""The fakes say what they promise, to other tools too."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml, GpuFault
from leanmark.testing.power import Constant, SquareWave, Switched, energy_j
from leanmark.testing.powercap import FakePowercap, FakeZone, Fault

pynvml = pytest.importorskip("pynvml")
JOULES_PER_KWH = 3.6e6


def test_energy_is_the_integral_of_power() -> None:
    wave = SquareWave(low_w=100.0, high_w=400.0, period_s=0.37, phase_s=0.1, duty=0.3)
    steps = 50_000
    width_s = 3.0 / steps
    watts = [energy_j(wave, n * width_s, (n + 1) * width_s) / width_s for n in range(steps)]
    assert energy_j(wave, 0.0, 3.0) == pytest.approx(sum(watts) * width_s)
    assert (min(watts), max(watts)) == pytest.approx((100.0, 400.0))
    assert energy_j(wave, 0.0, 37.0) == pytest.approx(37.0 * (0.3 * 400.0 + 0.7 * 100.0))
    assert energy_j(Constant(70.0), 1.0, 3.0) == 140.0


def test_a_switched_load_remembers_when_it_was_switched() -> None:
    load = Switched(60.0)
    load.switch(1.0, 300.0)
    load.switch(2.0, 60.0)
    assert energy_j(load, 0.5, 3.0) == pytest.approx(30.0 + 300.0 + 60.0)
    with pytest.raises(ValueError, match="already switched at 2"):
        load.switch(1.5, 10.0)


def test_the_tree_is_laid_out_as_linux_does(tmp_path: Path) -> None:
    zones = [
        FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(50.0)),
        FakeZone(folder="intel-rapl:0:0", name="dram", power=Constant(5.0)),
    ]
    clock = VirtualClock(start_s=10.0)
    FakePowercap(tmp_path, zones, clock).write()
    nested = tmp_path / "intel-rapl" / "intel-rapl:0" / "intel-rapl:0:0"
    assert (nested / "name").read_text().split() == ["dram"]
    assert (tmp_path / "intel-rapl:0:0").resolve() == nested
    assert int((tmp_path / "intel-rapl:0" / "energy_uj").read_text()) == pytest.approx(500e6, rel=1e-3)


def test_a_file_that_goes_missing_is_removed_and_comes_back(tmp_path: Path) -> None:
    fault = Fault(kind="missing", start_s=5.0, stop_s=15.0)
    zone = FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(50.0), faults=(fault,))
    clock = VirtualClock(start_s=10.0)
    tree = FakePowercap(tmp_path, [zone], clock)
    tree.write()
    assert not (tmp_path / "intel-rapl:0" / "energy_uj").exists()
    clock.sleep(10.0)
    tree.write()
    assert (tmp_path / "intel-rapl:0" / "energy_uj").exists()


def test_codecarbon_reads_the_tree_and_loses_wraps(tmp_path: Path) -> None:
    from codecarbon.core.cpu import IntelRAPL
    from codecarbon.core.units import Time

    zone = FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(10.0), span_uj=10_000_000)
    clock = VirtualClock(start_s=0.05)
    tree = FakePowercap(tmp_path, [zone], clock)
    tree.write()
    reader = IntelRAPL(rapl_dir=str(tmp_path / "intel-rapl"))
    reader.get_cpu_details(Time.from_seconds(1.0))
    clock.sleep(3.6)
    tree.write()
    kwh = reader.get_cpu_details(Time.from_seconds(3.6))["Processor Energy Delta_0(kWh)"]
    assert kwh * JOULES_PER_KWH == pytest.approx(6.0, abs=0.1)  # of 36 J: three wraps are lost


def test_codecarbon_reads_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from codecarbon.core import gpu_nvidia
    from codecarbon.core.units import Time

    monkeypatch.setattr(gpu_nvidia, "pynvml", pynvml)
    clock = VirtualClock()
    with FakeNvml([FakeGpu(power=Constant(300.0))], clock).installed():
        device = gpu_nvidia.NvidiaGPUDevice(handle=pynvml.nvmlDeviceGetHandleByIndex(0), gpu_index=0)
        clock.sleep(5.0)
        delta = device.delta(Time.from_seconds(5.0))
        assert device.get_gpu_details()["power_limit"] == 700.0
    assert delta["name"] == "NVIDIA H100 80GB HBM3"
    assert delta["delta_energy_consumption"].kWh * JOULES_PER_KWH == pytest.approx(1500.0, abs=30.0)


def test_the_library_answers_like_the_real_one_and_leaves_no_trace() -> None:
    before = pynvml.nvmlLib
    gone = GpuFault(kind="error", start_s=1010.0)
    gpus = [
        FakeGpu(power=Constant(70.0), uuid="GPU-a", processes=(7, 8), faults=(gone,)),
        FakeGpu(power=Constant(300.0), uuid="GPU-b", module_power=Constant(500.0), averages=False),
    ]
    clock = VirtualClock()
    with FakeNvml(gpus, clock).installed():
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetCount() == 2
        first, second = (pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(2))
        assert pynvml.nvmlDeviceGetUUID(second) == "GPU-b"
        assert [one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(first)] == [7, 8]
        assert pynvml.nvmlDeviceGetPowerUsage(first) == pytest.approx(70_000, abs=1)
        average, gpu, module = pynvml.nvmlDeviceGetFieldValues(second, [185, 186, (186, 1)])
        assert average.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert gpu.value.uiVal == pytest.approx(300_000, abs=1)
        assert module.value.uiVal == pytest.approx(500_000, abs=1)
        with pytest.raises(pynvml.NVMLError_FunctionNotFound):
            pynvml.nvmlDeviceGetSerial(first)
        clock.sleep(20.0)
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceGetTotalEnergyConsumption(first)
    assert pynvml.nvmlLib is before
    assert pynvml._nvmlGetFunctionPointer_cache == {}
