"""10,000 seeded sequences of faults: a measured number has two counter values behind it, or is none."""

from __future__ import annotations

import math
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanmark.measuring.cost import CostMeter
from leanmark.meters.base import Meter, Reading
from leanmark.meters.codecarbon import CodeCarbon
from leanmark.meters.energy import choose
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.nvml_power import NvmlPower
from leanmark.meters.perf_energy import PerfEnergy
from leanmark.meters.rapl import Rapl
from leanmark.protocol.messages import Notice
from leanmark.record import DOMAIN_LOST, Provenance
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml, GpuFault
from leanmark.testing.perf import FakePerf
from leanmark.testing.power import Constant, Power, SquareWave
from leanmark.testing.powercap import FakePowercap, FakeZone, Fault

pytest.importorskip("pynvml")
START_S = 1000.0
UPDATE_J = 400.0 * 1e-3

LAYOUTS = {
    "one": {"intel-rapl:0": "package-0"},
    "server": {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "dram",
        "intel-rapl:1": "package-1",
        "intel-rapl:1:0": "dram",
    },
    "laptop": {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:1": "psys"},
    "dies": {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"},
    "twice": {"intel-rapl:0": "package-0", "intel-rapl-mmio:0": "package-0"},
}


def load(random_: random.Random) -> Power:
    if random_.random() < 0.5:
        return Constant(random_.choice([0.0, 0.5, 40.0, 250.0]))
    return SquareWave(low_w=100.0, high_w=400.0, period_s=10 ** random_.uniform(-3, 1))


def measure(meter: Meter[Any], clock: VirtualClock, seconds: float) -> Reading | None:
    """As training runs, first calls and what is applied are metered; ``None`` where it refuses, in words."""
    cost = CostMeter(meter)
    cost.notice(Notice("begins"))
    clock.sleep(seconds)
    cost.notice(Notice("ended"))
    reading, found = cost._readings.get(None), cost.energy(seconds)
    if reading is None:
        assert found is None
        assert len(str(cost.reason)) > 20
        return None
    assert cost.reason is None
    assert found is not None
    assert found.provenance is meter.provenance
    assert found.joules == pytest.approx(reading.value / reading.duration_s * seconds)
    lost = [one for one in reading.findings if one.code == DOMAIN_LOST]
    assert {one.without for one in found.doubts("it")} == {one.without for one in lost}
    assert all(str(one.without).startswith("package-") for one in lost)
    return reading


def assert_honest(meter: Meter[Any], reading: Reading) -> None:
    assert reading.evidence is not None
    assert math.isfinite(reading.value)
    assert reading.value > 0
    assert reading.duration_s > 0
    if meter.provenance is Provenance.MEASURED_COUNTER:
        assert reading.evidence.distinct >= 2
    else:
        assert reading.evidence.samples >= 2


def count_honest(runs: int, run: Callable[[random.Random], bool]) -> int:
    """How many of ``runs`` gave a number; the others refused."""
    return sum(run(random.Random(seed)) for seed in range(runs))


def test_powercap(tmp_path: Path) -> None:
    for name, folders in LAYOUTS.items():
        zones = [
            FakeZone(folder=folder, name=label, power=Constant(1.0)) for folder, label in folders.items()
        ]
        FakePowercap(tmp_path / name, zones, VirtualClock()).write()

    def run(random_: random.Random) -> bool:
        layout = random_.choice(list(LAYOUTS))
        clock, seconds = VirtualClock(START_S), 10 ** random_.uniform(-4, 2.3)
        zones = [
            FakeZone(folder=folder, name=label, power=load(random_), faults=powercap_faults(random_, seconds))
            for folder, label in LAYOUTS[layout].items()
        ]
        tree = FakePowercap(tmp_path / layout, zones, clock)
        meter = Rapl(tree.root, read=tree.read, clock=clock, repeat=clock.repeat)
        reading = measure(meter, clock, seconds)
        if reading is None:
            return False
        assert_honest(meter, reading)
        silent = {"stuck", "reset", "zero"}  # within one poll these can hide
        if not silent & {fault.kind for zone in zones for fault in zone.faults} and layout == "one":
            assert abs(reading.value - tree.joules("intel-rapl:0", START_S, clock.now_s)) <= UPDATE_J
        return True

    assert 1000 < count_honest(5000, run) < 4000


def powercap_faults(random_: random.Random, seconds: float) -> tuple[Fault, ...]:
    kinds = ("permission", "missing", "garbage", "empty", "zero", "stuck", "reset")
    found = []
    for _ in range(random_.choice([0, 0, 0, 1, 2])):
        start_s = START_S + random_.uniform(-0.2, 1.0) * seconds
        found.append(
            Fault(
                kind=random_.choice(kinds),  # type: ignore[arg-type]
                file=random_.choice(["energy_uj"] * 8 + ["max_energy_range_uj", "name"]),
                start_s=start_s,
                stop_s=start_s + random_.choice([0.01, 0.3, 10.0]) * seconds,
            )
        )
    return tuple(found)


def test_perf_events(tmp_path: Path) -> None:
    def run(random_: random.Random) -> bool:
        clock = VirtualClock(START_S)
        fake.events.clear()
        fake.allowed = random_.random() < 0.9
        fake.powers = {name: [load(random_)] for name in ("energy-pkg", "energy-ram")}
        fake.clock = clock
        meter = PerfEnergy(fake.folder, open_event=fake.open, clock=clock, repeat=clock.repeat)
        meter.unavailable()
        for event in fake.events:
            event.lost = random_.random() < 0.2
        reading = measure(meter, clock, 10 ** random_.uniform(-4, 2))
        if reading is not None:
            assert_honest(meter, reading)
        return reading is not None

    fake = FakePerf(tmp_path / "power", {"energy-pkg": [], "energy-ram": []}, VirtualClock())
    (fake.folder / "cpumask").write_text("0\n")
    assert 300 < count_honest(1000, run) < 900


def gpu_faults(random_: random.Random, seconds: float) -> tuple[GpuFault, ...]:
    calls = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode")
    found = []
    for _ in range(random_.choice([0, 0, 1, 2])):
        start_s = START_S + random_.uniform(-0.5, 1.0) * seconds
        found.append(
            GpuFault(
                kind=random_.choice(["error", "stuck", "reset"]),
                code=random_.choice([1, 3, 4, 13, 15, 16, 999]),
                calls=random_.choice([(), (random_.choice(calls),)]),
                start_s=start_s,
                stop_s=start_s + random_.choice([0.01, 0.3, 10.0]) * seconds,
            )
        )
    return tuple(found)


@pytest.mark.parametrize("kind", ["energy, probed before", "energy", "power"])
def test_nvml(kind: str) -> None:
    clock = VirtualClock(START_S)
    update_s = 0.02 if kind == "energy" else 0.1
    fake = FakeNvml([FakeGpu(power=Constant(300.0), update_s=update_s)], clock)
    probed = NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat)

    def run(random_: random.Random) -> bool:
        seconds = random_.uniform(0.001, 3.0 if kind == "power" else 1.0)
        clock.now_s = START_S
        fake.gpus[0] = FakeGpu(
            power=load(random_),
            update_s=update_s,
            phase_s=random_.random() * update_s,
            averages=random_.random() < 0.7,
            mig=random_.random() < 0.1,
            processes=random_.choice([(), (1,)]),
            faults=gpu_faults(random_, seconds),
        )
        meter: Meter[Any] = probed
        if kind == "energy":
            meter = NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat)
        if kind == "power":
            meter = NvmlPower(Gpu(0), clock=clock, repeat=clock.repeat)
        reading = measure(meter, clock, seconds)
        if reading is not None:
            assert_honest(meter, reading)
        return reading is not None

    runs = {"energy, probed before": 2400, "energy": 200, "power": 1400}[kind]
    with fake.installed():
        probed.unavailable()
        probed.stop(_second(probed, clock))()
        assert 0.15 * runs < count_honest(runs, run) < 0.9 * runs


def _second(meter: NvmlEnergy, clock: VirtualClock) -> Any:
    token = meter.start()
    clock.sleep(1.0)
    return token


def tree_counts(root: Path) -> None:
    clock = VirtualClock()
    zones = [FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(9.0))]
    tree = FakePowercap(root, zones, clock)
    tree.write()
    reading = measure(Rapl(root, read=tree.read, clock=clock, repeat=clock.repeat), clock, 3.0)
    assert reading is not None
    assert reading.value == pytest.approx(27.0, abs=0.01)


def board_counts() -> None:
    clock = VirtualClock()
    with FakeNvml([FakeGpu(power=Constant(300.0))], clock).installed():
        meter = NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat)
        assert measure(meter, clock, 3.0) is not None


def test_meters_print_nothing_and_ask_no_one(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a meter uses the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    for component in ("processor", "gpu"):
        meter = choose(component).meter
        if meter is not None:
            meter.close()
    estimate = CodeCarbon()
    estimate.stop(estimate.start())()
    estimate.close()
    tree_counts(tmp_path / "tree")
    board_counts()
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
