# /// script
# requires-python = ">=3.11"
# dependencies = ["leanmark", "nvidia-ml-py"]
# ///
"""What the meters of energy cost: starting and stopping, and the threads beside an open window.

Real time and real threads. Counters are leanmark's fakes (files on disk, a GPU in Python) unless the machine
has some; a driver's own time for a call is not in the figures of a fake.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from leanmark.meters.base import Meter
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.nvml_power import NvmlPower
from leanmark.meters.perf_energy import PerfEnergy
from leanmark.meters.rapl import Rapl
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.perf import FakePerf
from leanmark.testing.power import Constant
from leanmark.testing.powercap import FakePowercap, FakeZone

ROUNDS, WINDOW_S, LONG_S = 10, 1.0, 10.0

SERVER = [
    FakeZone(folder=f"intel-rapl:{package}{nested}", name=name, power=Constant(50.0), offset_uj=offset)
    for package, offset in ((0, 0), (1, 10**9))
    for nested, name in (("", f"package-{package}"), (":0", "dram"))
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = FakePowercap(Path(folder) / "powercap", SERVER, time.perf_counter)
        perf = FakePerf(
            Path(folder) / "power",
            {"energy-pkg": [Constant(50.0), Constant(60.0)], "energy-ram": [Constant(5.0), Constant(6.0)]},
            time.perf_counter,
        )
        print("| meter | start + stop, 20 in a row | one, after sleeping | thread beside a window |")
        print("|---|---|---|---|")
        show("rapl, 2 packages with memory, files", Rapl(tree.root), tree)
        show("perf_energy, 2 packages with memory", PerfEnergy(perf.folder, open_event=perf.open))
        for update_s in (0.02, 0.1):
            gpu = FakeGpu(power=Constant(300.0), update_s=update_s)
            with FakeNvml([gpu], time.perf_counter).installed():
                show(f"nvml_energy, updates every {update_s * 1e3:.0f} ms", NvmlEnergy(Gpu(0)))
                if update_s == 0.1:
                    show("nvml_power, 10 samples/s", NvmlPower(Gpu(0)))


def show(name: str, meter: Meter[Any], tree: FakePowercap | None = None) -> None:
    if tree is not None:
        tree.write()
    reason = meter.unavailable()
    if reason is not None:
        raise SystemExit(f"{name}: {reason}")
    costs(meter, 1, tree)  # finds counters and update periods
    in_a_row = costs(meter, 20, tree) * 1e3
    alone = median(costs(meter, 1, tree) for _ in range(ROUNDS)) * 1e3
    started = time.process_time()
    token = meter.start()
    time.sleep(LONG_S)
    share = (time.process_time() - started) / LONG_S
    if tree is not None:
        tree.write()
    meter.stop(token)
    meter.close()
    print(f"| {name} | {in_a_row:.3f} ms | {alone:.3f} ms | {share:.2%} of a core |", flush=True)


def costs(meter: Meter[Any], windows: int, tree: FakePowercap | None) -> float:
    """What starting and stopping one of ``windows`` takes, in seconds: all are started, then all stopped."""
    time.sleep(0.1)
    started, tokens = [], []
    for _ in range(windows):
        before_s = time.perf_counter()
        tokens.append(meter.start())
        started.append(time.perf_counter() - before_s)
    if tree is not None:
        tree.write()
    time.sleep(WINDOW_S)
    stopped = []
    for token in tokens:
        before_s = time.perf_counter()
        meter.stop(token)
        stopped.append(time.perf_counter() - before_s)
    return median(started) + median(stopped)


if __name__ == "__main__":
    main()
