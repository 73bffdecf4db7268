"""leanmark beside other instruments, in one run: latency, peak memory, and the work of a step.

Latency: torch.utils.benchmark, in the same process and in turns with leanmark's blocks. Memory: what the
kernel says of a bare script that runs the same model. Work: torch's counter where it is right, a count by
hand where it is not. Written to results/<machine>/validation/agreement.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import flops
import tables
from journal import RESULTS, folder_here
from torch.utils.benchmark import Timer

from leanmark.measuring import memory_pass, prepare_pass, schedule
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.prepare_pass import Prepared
from leanmark.plan import FULL
from leanmark.protocol import messages
from leanmark.protocol.process import allowed_cores, pin
from leanmark.record import BASELINE, Case, Phase
from leanmark.worker import runner
from leanmark.worker.serve import Session

WORKLOADS = ("cnn", "mlp", "lstm", "transformer")
BATCH = 32
STEPS = 20
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A prepared workload: where its models lie, and who prepared it."""

    prepared: Prepared
    launcher: Launcher
    cores: tuple[int, ...]

    def place(self) -> messages.Place:
        return messages.Place(cores=self.cores[-1:], threads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=60, help="blocks of each in the latency part (60)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    path = folder_here(options.results) / "agreement.json"  # before this process is pinned
    found: dict[str, list[Any]] = {"latency": [], "memory": [], "work": [list(row) for row in flops.rows()]}
    with Launcher() as launcher:
        for name in WORKLOADS:
            subject = prepare(name, launcher)
            found["latency"].append([name, *latency(subject, options.turns)])
            found["memory"] += [[name, *row] for row in memory(subject)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(tables.agreement(found)))


def prepare(name: str, launcher: Launcher) -> Subject:
    """Train ``name`` as a run would."""
    cores = allowed_cores()
    prepared = Prepared(folder=launcher.folder / name, spec=messages.WorkloadSpec(name=name))
    first = schedule.replica(FULL, 1, cores, 0)
    ready, _ = prepare_pass.apply(BASELINE, prepared, ("eager", "onnxruntime"), first, launcher, None, "cpu")
    prepared.ready[BASELINE] = ready
    return Subject(prepared, launcher, cores)


def latency(subject: Subject, turns: int) -> tuple[float, float]:
    """Median seconds of a step by leanmark's blocks and by ``Timer``, one block of each in turns.

    All of it is in this process, pinned like a worker meanwhile.
    """
    session = Session()
    opened = session.open(
        messages.Open(
            case=Case(workload=subject.prepared.spec.name, batch=BATCH),
            workload=subject.prepared.spec,
            folder=str(subject.prepared.folder),
            place=subject.place(),
            warmup_s=FULL.warmup_s,
            block_s=FULL.block_s,
            judge_quality=False,
        )
    )
    step: runner.Step = session.opened.executable.step
    timer = Timer("step()", globals={"step": step})
    ours, theirs = [], []

    def our_turn() -> None:
        ours.append(session.run_block(opened.loops).wall_s / opened.loops)

    def their_turn() -> None:
        theirs.append(timer.timeit(opened.loops).median)

    for turn in range(turns):
        for take in (our_turn, their_turn) if turn % 2 else (their_turn, our_turn):
            take()
    pin(subject.cores)
    gc.enable()
    return median(ours), median(theirs)


def memory(subject: Subject) -> Iterator[tuple[str, float, float]]:
    """Peak bytes by leanmark and by a bare run: of inference and training in eager, and of the graph."""
    runs: tuple[tuple[str, Phase, str], ...] = (
        ("inference", "inference", "eager"),
        ("training", "training", "eager"),
        ("onnxruntime", "inference", "onnxruntime"),
    )
    for what, phase, backend in runs:
        case = Case(workload=subject.prepared.spec.name, backend=backend, phase=phase, batch=BATCH)
        yield what, our_peak(subject, case), bare_peak(subject, what)


def our_peak(subject: Subject, case: Case) -> float:
    layout = schedule.replica(FULL, 1, subject.cores, 0).layout
    worker = subject.launcher.spawn(layout, memory_pass.imports(case))
    request = messages.PeakMemory(
        case=case,
        workload=subject.prepared.spec,
        folder=str(subject.prepared.folder),
        place=subject.place(),
        steps=STEPS,
    )
    try:
        reading: messages.MemoryReading = worker.ask(request, TIMEOUT_S)
        return float(reading.peak_bytes)
    finally:
        worker.close()


def bare_peak(subject: Subject, what: str) -> float:
    script = Path(__file__).with_name("bare.py")
    artifact = subject.prepared.folder / BASELINE
    done = subprocess.run(
        [sys.executable, str(script), str(artifact), what, str(BATCH), str(STEPS)],
        env=schedule.replica(FULL, 1, subject.cores, 0).layout.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
