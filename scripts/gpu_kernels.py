#!/usr/bin/env python3
"""usage: scripts/gpu_kernels.py [--folder DIR] [--seconds S] [--first N] [--rehearse] [FILTER...]

The Triton kernels on this GPU: each case is checked against float64, every configuration of it too, then
timed against the libraries, and written to DIR/gpu-kernels/CASE.json, or, where it fails or is wrong, to
CASE.failed. What is written is not done again: run it until it says that nothing is left. A case that
crashes or hangs costs only itself. A FILTER keeps the cases whose name contains it. Needs no network.

All contenders of a case are CUDA graphs, replayed in turn in one process, in alternating order, on random
data. Cold: L2 is flushed before each, so weights come from memory. Hot: ten calls in a graph, per call. A
ratio is the median over the rounds of library / ours, with the 95 % interval of that median: above 1, ours is
faster. It holds for this process. Joules are those of the hot calls by the board's counter, idle power
included. The roof is that of the work (what must be moved, what must be multiplied) by ceilings that are
measured first, into DIR/gpu-kernels/ceilings.json.

--rehearse goes through all of it on the processor, with small problems and numbers that mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import gpu_ceilings
import gpu_watch
import torch
from gpu_ceilings import Ceilings
from gpu_kernel_cases import Case, cases
from gpu_kernel_times import measure, summary
from gpu_stage import Rehearsal, Stage

from leanmark.protocol.process import die_with_parent
from leanmark_kernels import triton as kernels
from leanmark_kernels.triton import choices

CASE_S = 100.0
"""A case that takes longer hangs."""

SLOWEST_CASE_S = 30.0
"""On paper, since no GPU has timed it: compiling and trying every configuration of a kernel's space."""

CEILINGS = "ceilings"


def main() -> int:
    options = parse()
    reason = None if options.rehearse else why_not()
    if reason is not None:
        return say(reason, 2)
    folder: Path = options.folder / "gpu-kernels"
    folder.mkdir(parents=True, exist_ok=True)
    stage = Rehearsal() if options.rehearse else Stage()
    if options.child:
        die_with_parent(os.getppid())
        return work(options.filters, folder, stage)
    return watch(options, folder, stage)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # it is in the docstring
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER")
    parser.add_argument("--folder", type=Path, default=Path("results"))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--first", type=int, help="only so many cases, from the first on")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def why_not() -> str | None:
    if not torch.cuda.is_available():
        return "there is no CUDA GPU that torch can use here, and these cases can only be shown on one"
    reason = kernels.why_unavailable()
    return None if reason is None else f"the kernels cannot run here: {reason}"


def chosen(filters: Sequence[str], large: bool = True) -> list[Case]:
    return [case for case in cases(large) if not filters or any(text in case.name for text in filters)]


def watch(options: argparse.Namespace, folder: Path, stage: Stage) -> int:
    """Have a process do what is left, and another one what it leaves when it breaks."""
    end = time.monotonic() + options.seconds
    names = [case.name for case in chosen(options.filters, stage.large)][: options.first]
    while left := [name for name in names if not done(folder, name)]:
        seconds = end - time.monotonic()
        if seconds < SLOWEST_CASE_S:
            return say(f"no time for {left[0]} and what follows: run this again to go on", 1)
        mode = ["--child", *(["--rehearse"] if options.rehearse else [])]
        command = gpu_watch.again(*mode, "--folder", str(options.folder), *left)
        ended = gpu_watch.run(command, piece_s=CASE_S, total_s=seconds)
        if not ended.piece:
            return say(f"{ended.why} before it began; it last said:\n{ended.said}", 1)
        if ended.why and not ended.late and not done(folder, ended.piece):
            write(folder / f"{ended.piece}.failed", f"{ended.why}; it last said:\n{ended.said}")
            say(f"{ended.piece} FAILED: {ended.why}", 1)
    wrong = sorted(path.stem for path in folder.glob("*.failed"))
    return say(f"failed or wrong: {', '.join(wrong)}", 1) if wrong else say("nothing is left to do", 0)


def done(folder: Path, name: str) -> bool:
    return any((folder / f"{name}.{ending}").exists() for ending in ("json", "failed"))


def work(names: Sequence[str], folder: Path, stage: Stage) -> int:
    """The cases ``names``, one after the other, until the GPU is broken."""
    os.environ.setdefault(choices.FOLDER, str(folder / "tuned"))
    known = {case.name: case for case in cases(stage.large)}
    gpu_watch.begin(CEILINGS)
    roofs = ceilings(folder, stage)
    for name in names:
        gpu_watch.begin(name)
        path, failed = folder / f"{name}.json", folder / f"{name}.failed"
        try:
            found = measure(known[name], stage, roofs)
            write(path if found["right"] else failed, json.dumps(found, indent=1))
            say(summary(found), 0)
        except Exception:  # of the compiler, the driver or a library: told in its file, and the others go on
            write(failed, traceback.format_exc())
            say(f"{name} FAILED: see {failed}, and delete it to try again", 1)
            stage.synchronize()  # raises where the failure broke the context: then another process goes on
    return 0


def ceilings(folder: Path, stage: Stage) -> Ceilings | None:
    """Measured once; ``None`` where that failed, which costs the shares of them and nothing else."""
    path, failed = folder / f"{CEILINGS}.json", folder / f"{CEILINGS}.failed"
    if failed.exists():
        return None
    if not path.exists():
        try:
            write(path, json.dumps(asdict(gpu_ceilings.measure(stage)), indent=1))
        except Exception:  # told in its file, as that of a case
            write(failed, traceback.format_exc())
            say(f"{CEILINGS} FAILED: see {failed}, and delete it to try again", 1)
            stage.synchronize()
            return None
    roofs = Ceilings(**json.loads(path.read_text()))
    found = ", ".join(f"{name} {value / 1e12:.4g} T/s" for name, value in asdict(roofs).items())
    say(f"ceilings: {found}", 0)
    return roofs


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".part")
    temporary.write_text(text)
    temporary.replace(path)


def say(text: str, code: int) -> int:
    print(f"gpu_kernels: {text}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
