# /// script
# requires-python = ">=3.11"
# dependencies = ["leanmark", "nvidia-ml-py"]
# ///
"""What the meters of energy cost: starting and stopping, and the threads beside an open window.

Real time and real threads. Counters are leanmark's fakes (files on disk, a GPU in Python) unless the machine
has some; a driver's own time for a call is not in the figures of a fake. A process that has slept finds its
caches cold, and every first call then takes many times as long: the controls in the same table say how long
the least takes that must be done, so that what remains is the meter's. The reading is worked out when a
window is over, and shown beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import pynvml

from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.nvml_power import NvmlPower
from leanmark.meters.perf_energy import PerfEnergy
from leanmark.meters.rapl import Rapl
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.perf import FakePerf
from leanmark.testing.power import Constant
from leanmark.testing.powercap import FakePowercap, FakeZone

ROUNDS, WINDOW_S, LONG_S = 15, 0.5, 5.0

SERVER = [
    FakeZone(folder=f"intel-rapl:{package}{nested}", name=name, power=Constant(50.0), offset_uj=offset)
    for package, offset in ((0, 0), (1, 10**9))
    for nested, name in (("", f"package-{package}"), (":0", "dram"))
]


class Started(Protocol):
    """A meter, or what stands in for one."""

    def start(self) -> Any: ...

    def stop(self, token: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Control:
    """Does ``begin`` where a meter is started and ``end`` where it is stopped, and nothing else."""

    begin: Callable[[], object]
    end: Callable[[], object]

    def start(self) -> object:
        return self.begin()

    def stop(self, token: object) -> object:
        return self.end()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = FakePowercap(Path(folder) / "powercap", SERVER, time.perf_counter)
        tree.write()
        perf = FakePerf(
            Path(folder) / "power",
            {"energy-pkg": [Constant(50.0), Constant(60.0)], "energy-ram": [Constant(5.0), Constant(6.0)]},
            time.perf_counter,
        )
        print("| meter | start + stop, 20 in a row | one, after sleeping | its reading, after the window "
              "| thread beside a window |")  # fmt: skip
        print("|---|---|---|---|---|")
        show("control: two empty functions", Control(lambda: None, lambda: None))
        files = [os.open(tree.root / zone.folder / "energy_uj", os.O_RDONLY) for zone in SERVER]

        def read() -> list[tuple[int, float]]:
            return [(int(os.pread(file, 64, 0)), time.perf_counter()) for file in files]

        show("control: the same 4 open files and the clock, read twice", Control(read, read), tree)
        show("rapl, 2 packages with memory, files", Rapl(tree.root), tree)
        show("perf_energy, 2 packages with memory", PerfEnergy(perf.folder, open_event=perf.open))
        for update_s in (0.02, 0.1):
            gpu = FakeGpu(power=Constant(300.0), update_s=update_s)
            with FakeNvml([gpu], time.perf_counter).installed():
                if update_s == 0.02:
                    show("control: the same calls of the fake GPU, by pynvml alone", bare_nvml())
                show(f"nvml_energy, updates every {update_s * 1e3:.0f} ms", NvmlEnergy(Gpu(0)))
                if update_s == 0.1:
                    show("nvml_power, 10 samples/s", NvmlPower(Gpu(0)))


def bare_nvml() -> Control:
    """One reading of the counter, and at the end the question of who else is on the board."""
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    return Control(
        lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle),
        lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle),
    )


def show(name: str, meter: Started, tree: FakePowercap | None = None) -> None:
    if tree is not None:
        tree.write()
    if not isinstance(meter, Control):
        reason = meter.unavailable()  # type: ignore[attr-defined]
        if reason is not None:
            raise SystemExit(f"{name}: {reason}")
    costs(meter, 1, tree)  # finds counters and update periods
    in_a_row_s, _ = costs(meter, 20, tree)
    alone_s, reading_s = map(median, zip(*(costs(meter, 1, tree) for _ in range(ROUNDS)), strict=True))
    reading, thread = "", ""
    if not isinstance(meter, Control):
        reading, thread = f"{reading_s * 1e3:.3f} ms", f"{beside(meter, tree):.2%} of a core"
    print(
        f"| {name} | {in_a_row_s * 1e3:.3f} ms | {alone_s * 1e3:.3f} ms | {reading} | {thread} |", flush=True
    )


def beside(meter: Any, tree: FakePowercap | None) -> float:
    """The share of a core that a long window takes while it is open."""
    started = time.process_time()
    token = meter.start()
    time.sleep(LONG_S)
    share = (time.process_time() - started) / LONG_S
    if tree is not None:
        tree.write()
    meter.stop(token)
    meter.close()
    return share


def costs(meter: Started, windows: int, tree: FakePowercap | None) -> tuple[float, float]:
    """What starting and stopping one of ``windows`` takes, and its reading, in seconds.

    All are started, then all stopped.
    """
    time.sleep(0.1)
    started, tokens = [], []
    for _ in range(windows):
        before_s = time.perf_counter()
        tokens.append(meter.start())
        started.append(time.perf_counter() - before_s)
    if tree is not None:
        tree.write()
    time.sleep(WINDOW_S)
    stopped, read = [], []
    for token in tokens:
        before_s = time.perf_counter()
        reading = meter.stop(token)
        stopped.append(time.perf_counter() - before_s)
        before_s = time.perf_counter()
        if callable(reading):  # those of the controls are not
            reading()
        read.append(time.perf_counter() - before_s)
    return median(started) + median(stopped), median(read)


if __name__ == "__main__":
    main()
