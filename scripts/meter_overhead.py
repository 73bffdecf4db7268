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

ROUNDS, WINDOW_S, NAP_S, LONG_S = 10, 1.0, 1e-4, 10.0

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
        print("| meter | start + stop, process awake | just woken | thread beside a window |")
        print("|---|---|---|---|")
        show("rapl, 2 packages with memory, files", Rapl(tree.root), tree)
        show("perf_energy, 2 packages with memory", PerfEnergy(perf.folder, open_event=perf.open))
        for update_s in (0.02, 0.1):
            gpu = FakeGpu(power=Constant(300.0), update_s=update_s)
            with FakeNvml([gpu], time.perf_counter).installed():
                show(f"nvml_energy, updates every {update_s * 1e3:.0f} ms", NvmlEnergy(Gpu(0)))
                if update_s == 0.1:
                    show("nvml_power, 20 samples/s", NvmlPower(Gpu(0)))


def show(name: str, meter: Meter[Any], tree: FakePowercap | None = None) -> None:
    if tree is not None:
        tree.write()
    reason = meter.unavailable()
    if reason is not None:
        raise SystemExit(f"{name}: {reason}")
    once(meter, WINDOW_S, tree)  # finds counters and update periods
    awake, woken = (
        median(once(meter, nap_s, tree) for _ in range(ROUNDS)) * 1e3 for nap_s in (NAP_S, WINDOW_S)
    )
    started = time.process_time()
    token = meter.start()
    time.sleep(LONG_S)
    share = (time.process_time() - started) / LONG_S
    if tree is not None:
        tree.write()
    meter.stop(token)
    meter.close()
    print(f"| {name} | {awake:.3f} ms | {woken:.3f} ms | {share:.2%} of a core |", flush=True)


def once(meter: Meter[Any], nap_s: float, tree: FakePowercap | None) -> float:
    """The time that starting and stopping take, in seconds, around a window of naps of ``nap_s``."""
    sleep(nap_s)
    first_s = time.perf_counter()
    token = meter.start()
    started_s = time.perf_counter()
    sleep(nap_s)
    if tree is not None:
        tree.write()
    sleep(NAP_S, WINDOW_S / 20 if nap_s == NAP_S else NAP_S)
    before_s = time.perf_counter()
    meter.stop(token)
    return started_s - first_s + time.perf_counter() - before_s


def sleep(nap_s: float, seconds: float = WINDOW_S) -> None:
    """In naps of ``nap_s``: short ones keep the core and its caches awake."""
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        time.sleep(nap_s)


if __name__ == "__main__":
    main()
