# /// script
# requires-python = ">=3.11"
# dependencies = ["leanmark", "codecarbon>=3.3,<3.4", "nvidia-ml-py"]
# ///
"""The same known joules read three ways: by leanmark's meters, by codecarbon's tasks, and naively.

Nothing here is measured: GPU and processor are leanmark's fakes on a virtual clock, so the truth is exact.
Each cell is the error of the energy of one step; of the GPU, the worst of 20 seeded phases.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvml

from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.rapl import Rapl
from leanmark.meters.window import per_step
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.power import Constant, SquareWave, Switched
from leanmark.testing.powercap import AMD_SPAN_UJ, INTEL_SPAN_UJ, FakePowercap, FakeZone

IDLE_W, BUSY_W, STEP_S, PHASES = 60.0, 300.0, 1e-3, 20
JOULES_PER_KWH = 3.6e6


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    print("# What three readers make of the same joules (fakes on a virtual clock; truth is exact)\n")
    clock = VirtualClock()
    library = FakeNvml([board(Switched(IDLE_W), 0.1, 0.0)], clock)
    with tempfile.TemporaryDirectory() as folder, library.installed():
        gpu_table(Path(folder), library, clock)
        processor_table(Path(folder))


def gpu_table(folder: Path, library: FakeNvml, clock: VirtualClock) -> None:
    print(f"NVIDIA energy counter: steps of {STEP_S * 1e3:.0f} ms at {BUSY_W:.0f} W, idle {IDLE_W:.0f} W.")
    print(f"Worst error of J per step in {PHASES} phases.\n")
    print("| counter updates every | window | leanmark (stated) | codecarbon task | aligned, work stops |")
    print("|---|---|---|---|---|")
    with codecarbon_tracker(folder, gpu=True) as tracker:
        for update_s in (0.02, 0.05, 0.1):
            for seconds in (0.25, 1.0, 5.0):
                readers = (leanmark_gpu, lambda *a: codecarbon_gpu(tracker, *a), naive_gpu)
                cells = [worst(reader, library, clock, update_s, seconds) for reader in readers]
                print(f"| {update_s * 1e3:.0f} ms | {seconds:g} s | {' | '.join(cells)} |")
    print()


Reader = Callable[[VirtualClock, Switched, int], tuple[float, float | None]]


def worst(reader: Reader, library: FakeNvml, clock: VirtualClock, update_s: float, seconds: float) -> str:
    """The largest error over phases, and the largest uncertainty that was stated."""
    errors, stated = [], []
    random_ = random.Random(1)
    for _ in range(PHASES):
        clock.sleep(10.0 + random_.random())
        load = Switched(IDLE_W)
        library.gpus[0] = board(load, update_s, random_.random() * update_s)
        found, doubt = reader(clock, load, round(seconds * (1 + 0.1 * random_.random()) / STEP_S))
        truth = BUSY_W * STEP_S
        errors.append(found / truth - 1)
        stated.append(doubt / truth if doubt is not None else None)
    largest = max(errors, key=abs)
    known = [one for one in stated if one is not None]
    return f"{largest:+.1%}" + (f" (±{max(known):.1%})" if known else "")


def board(load: Switched, update_s: float, phase_s: float) -> FakeGpu:
    return FakeGpu(power=load, update_s=update_s, phase_s=phase_s, call_s=0.0)


def work(clock: VirtualClock, load: Switched, steps: int) -> None:
    load.switch(clock(), BUSY_W)
    clock.sleep(steps * STEP_S)
    load.switch(clock(), IDLE_W)


def leanmark_gpu(clock: VirtualClock, load: Switched, steps: int) -> tuple[float, float | None]:
    meter = NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat)
    meter.stop(opened(meter, clock, 1.0))()  # the first window finds the update period
    token = meter.start()
    work(clock, load, steps)
    return per_step(meter.stop(token)(), steps, steps * STEP_S)


def opened(meter: NvmlEnergy, clock: VirtualClock, seconds: float) -> Any:
    token = meter.start()
    clock.sleep(seconds)
    return token


def codecarbon_gpu(
    tracker: Any, clock: VirtualClock, load: Switched, steps: int
) -> tuple[float, float | None]:
    task = f"task-{clock():.6f}"
    tracker.start_task(task)
    work(clock, load, steps)
    return tracker.stop_task(task).gpu_energy * JOULES_PER_KWH / steps, None


def naive_gpu(clock: VirtualClock, load: Switched, steps: int) -> tuple[float, float | None]:
    """Waits for an update before the work and after it: the waiting is billed too."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    before = next_update(clock, handle)
    work(clock, load, steps)
    return (next_update(clock, handle) - before) * 1e-3 / steps, None


def next_update(clock: VirtualClock, handle: Any) -> int:
    count = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    while (fresh := int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))) == count:
        clock.sleep(1e-4)
    return fresh


def processor_table(folder: Path) -> None:
    wave = SquareWave(low_w=100.0, high_w=400.0, period_s=7.3)
    package = FakeZone(folder="intel-rapl:0", name="package-0", power=wave, span_uj=AMD_SPAN_UJ)
    die = FakeZone(folder="intel-rapl:0", name="package-0-die-0", power=Constant(200.0))
    mirror = FakeZone(folder="intel-rapl:1", name="package-0-die-1", power=Constant(200.0))
    intel = FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(200.0), span_uj=INTEL_SPAN_UJ)
    dram = FakeZone(folder="intel-rapl:0:0", name="dram", power=Constant(40.0), span_uj=AMD_SPAN_UJ)
    rows: list[tuple[str, list[FakeZone], list[str], float]] = [
        ("65.5 kJ counter, 250 W", [package], ["intel-rapl:0"], 60.0),
        ("65.5 kJ counter, 250 W", [package], ["intel-rapl:0"], 1000.0),
        ("65.5 kJ counter, 250 W", [package], ["intel-rapl:0"], 6000.0),
        ("package 200 W and memory 40 W", [intel, dram], ["intel-rapl:0", "intel-rapl:0:0"], 60.0),
        ("two dies that mirror one counter", [die, mirror], ["intel-rapl:0"], 60.0),
    ]
    print("RAPL counters. Error of the energy of the window.\n")
    print("| processor | window | wraps | leanmark (stated) | codecarbon task | difference of two reads |")
    print("|---|---|---|---|---|---|")
    for number, (name, zones, counted, seconds) in enumerate(rows):
        cells = processor_row(folder / str(number), zones, counted, seconds)
        print(f"| {name} | {seconds:g} s | {' | '.join(cells)} |")


def processor_row(root: Path, zones: Sequence[FakeZone], counted: Sequence[str], seconds: float) -> list[str]:
    clock = VirtualClock()
    tree = FakePowercap(root, zones, clock)
    tree.write()
    meter = Rapl(root, read=tree.read, clock=clock, repeat=clock.repeat)
    files = [root / zone.folder / "energy_uj" for zone in zones]
    with codecarbon_tracker(root, gpu=False) as tracker:
        before = [int(file.read_text()) for file in files]
        tracker.start_task("task")
        token, start_s = meter.start(), clock()
        clock.sleep(seconds)
        tree.write()
        stopped, stop_s = meter.stop(token), clock()
        carbon_j = tracker.stop_task("task").cpu_energy * JOULES_PER_KWH
    reading = stopped()
    naive_j = sum(int(file.read_text()) - count for file, count in zip(files, before, strict=True)) / 1e6
    truth_j = sum(tree.joules(zone, start_s, stop_s) for zone in counted)
    assert reading.evidence is not None
    assert reading.uncertainty is not None
    return [
        str(reading.evidence.wraps),
        f"{reading.value / truth_j - 1:+.3%} (±{reading.uncertainty / truth_j:.3%})",
        f"{carbon_j / truth_j - 1:+.1%}",
        f"{naive_j / truth_j - 1:+.1%}",
    ]


@contextmanager
def codecarbon_tracker(folder: Path, *, gpu: bool) -> Iterator[Any]:
    """codecarbon, led to believe in the fakes: an ``nvidia-smi`` on the path, another powercap tree."""
    smi = folder / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 0\n")
    smi.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.core import cpu

    cpu._get_candidate_bases = lambda rapl_dir: [] if gpu else [str(folder)]
    # without looking for the real tree first
    cpu.IntelRAPL._setup_rapl = cpu.IntelRAPL._fetch_rapl_files  # type: ignore[method-assign]
    tracker = OfflineEmissionsTracker(
        country_iso_code="USA",
        project_name="truth",
        measure_power_secs=15,
        tracking_mode="machine",
        output_methods=[],
        log_level="critical",
        pue=1.0,
        gpu_ids=[0] if gpu else [],
        rapl_include_dram=True,
        allow_multiple_runs=True,
    )
    tracker.start_task("first")  # it reads the machine
    tracker.stop_task("first")
    try:
        yield tracker
    finally:
        tracker.stop()


if __name__ == "__main__":
    main()
