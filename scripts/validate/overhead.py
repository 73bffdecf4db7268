"""What leanmark itself costs: in a block, between blocks, and in the parent while a worker runs.

Runs the workload ``noop`` in a worker as a contest does. Prints the time a block holds beside its steps, the
cost of the probes around it, the time from the end of a block to the start of the next, and how much of the
processor the parent uses while its worker fills a window of 2 s. Written to
results/<machine>/validation/overhead.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from journal import RESULTS, folder_here

from leanmark.machine.core_speed import hash_bytes_per_s
from leanmark.machine.disturbance import block_flags, round_flags
from leanmark.machine.probes import BlockProbe, RoundProbe
from leanmark.measuring.launcher import Launcher, Worker
from leanmark.protocol import messages, process
from leanmark.protocol.layout import Layout
from leanmark.record import Case
from leanmark.worker import runner

BLOCK_S = 1e-3
WINDOW_S = 2.0
TIMEOUT_S = 120.0
REPEATS = 1000

CASE = Case(workload="noop")
LAYOUT = Layout(hash_seed=1, padding_bytes=0, threads=1, wait="passive")


@dataclass(frozen=True, slots=True)
class Figure:
    """A cost in words; ``of_block`` is its share of the shortest block."""

    name: str
    text: str
    of_block: float | None = None

    def __str__(self) -> str:
        share = "" if self.of_block is None else f"  {self.of_block:8.3%} of a block of 1 ms"
        return f"{self.name:58}{self.text:>12}{share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--blocks", type=int, default=300, help="how many blocks to run (300)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = [in_a_block(), *probes()]
    with Launcher() as launcher:
        worker = launcher.server(LAYOUT).fork()
        opened = open_noop(worker, str(launcher.folder / "noop"))
        found += [step(opened), between_blocks(worker, opened.loops, options.blocks), parent(worker)]
    for one in found:
        print(one)
    path = folder_here(options.results) / "overhead.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False) + "\n")


def open_noop(worker: Worker, folder: str) -> messages.Opened:
    """Prepare noop and open it, as a contest would."""
    workload = messages.WorkloadSpec(name="noop")
    place = messages.Place(cores=process.allowed_cores()[-1:], threads=1)
    worker.ask(
        messages.Prepare(
            workload=workload,
            folder=folder,
            chain="fp32",
            backends=("eager",),
            place=place,
            device=CASE.device,
        ),
        TIMEOUT_S,
    )
    opened: messages.Opened = worker.ask(
        messages.Open(
            case=CASE,
            workload=workload,
            folder=folder,
            place=place,
            warmup_s=1.0,
            block_s=BLOCK_S,
            judge_quality=False,
        ),
        TIMEOUT_S,
    )
    return opened


def in_a_block() -> Figure:
    """A block of no steps holds nothing but leanmark."""
    seconds = median(runner.run_block(lambda: None, 0).wall_s for _ in range(REPEATS))
    return figure("in a block, beside its steps", seconds)


def probes() -> tuple[Figure, ...]:
    """Reading before and after, and judging what is between."""
    core = process.allowed_cores()[-1]
    with BlockProbe(core) as block, RoundProbe((core,)) as round_:
        return (
            figure(
                "probes of a block, outside the time it takes",
                cost(lambda: block_flags(block.read(), block.read())),
            ),
            figure("hashing after a block, which tells how fast the core is", cost(hash_bytes_per_s)),
            figure(
                "probes of a round, in the parent", cost(lambda: round_flags(round_.read(), round_.read()))
            ),
        )


def cost(call: Callable[[], object]) -> float:
    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return median(once() for _ in range(REPEATS))


def step(opened: messages.Opened) -> Figure:
    return Figure("a step of noop (the call of a module that does nothing)", f"{opened.step_s * 1e6:.2f} µs")


def between_blocks(worker: Worker, loops: int, count: int) -> Figure:
    """Both ends of every block are on the worker's clock."""
    times = [worker.ask(messages.RunBlock(loops), TIMEOUT_S) for _ in range(count)]
    ends = [block.start_s + block.wall_s for block in times]
    gaps = [block.start_s - end for end, block in zip(ends, times[1:], strict=False)]
    return figure("from the end of a block to the start of the next", median(gaps))


def parent(worker: Worker) -> Figure:
    """It sleeps on the worker's socket."""
    before = time.process_time()  # os.times() counts in ticks of 10 ms
    window = worker.ask(messages.RunWindow(WINDOW_S), TIMEOUT_S)
    used_s = time.process_time() - before
    name = f"CPU time of the parent in a window of {window.wall_s:.1f} s"
    return Figure(name, f"{used_s / window.wall_s:.3%}")


def figure(name: str, seconds: float) -> Figure:
    return Figure(name, f"{seconds * 1e6:.2f} µs", seconds / BLOCK_S)


if __name__ == "__main__":
    main()
