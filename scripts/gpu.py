#!/usr/bin/env python3
"""usage: scripts/gpu.py [--folder DIR] [--minutes M] [--device cuda:N] [PIECE...]

Everything that only a GPU can show, in pieces: `check` (what fakes stood in for), `kernels` (the Triton
kernels), then one contest after another, the most telling first. Records
are under DIR. What is done is not done again: run it until it says that nothing is left. Needs no network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from leanmark import plan, suite
from leanmark.errors import LeanmarkError
from leanmark.measuring import target
from leanmark.measuring.campaign import Campaign
from leanmark.measuring.target import Target
from leanmark.progress import Progress
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import Phase

HERE = Path(__file__).parent

MARGIN_S = 30.0
"""To compile and end the last kernel in."""

THREADS = 4
"""Of the host: models are prepared on it."""

SAMPLING = replace(plan.QUICK, energy_rounds=2, memory_steps=3, warmup_s=2.0)

INFERENCE = (
    "tf32", "bf16", "fp16", "fp8", "int8dq", "int4wo", "sparse24", "bf16+cuda_graphs", "bf16+compile",
)  # fmt: skip
TRAINING = ("tf32", "bf16", "fp16", "bf16+compile", "fused_optimizer", "checkpointing", "bf16+cuda_graphs")


@dataclass(frozen=True, slots=True)
class Contest:
    """One contest, and about how many seconds it takes (on paper: no GPU has timed this)."""

    workload: str
    phase: Phase
    batch: int
    techniques: tuple[str, ...]
    cost_s: float = 200.0

    @property
    def name(self) -> str:
        return f"{self.workload}-{self.phase}-{self.batch}"


IMAGES = tuple(name for name in INFERENCE if name not in ("fp8", "int8dq", "int4wo", "sparse24"))
CONTESTS = (
    Contest("resnet50", "inference", 64, (*IMAGES, "bf16+channels_last", "bf16+channels_last+compile")),
    Contest("bert", "inference", 32, INFERENCE),
    Contest("gpt2-decode", "inference", 1, (*INFERENCE, "int8wo")),
    Contest("bert", "training", 32, TRAINING),
    Contest("resnet50", "training", 64, (*TRAINING, "bf16+channels_last")),
    Contest("gpt2-prefill", "inference", 8, INFERENCE),
    Contest("gpt2-prefill", "training", 8, TRAINING),
    Contest("cnn", "inference", 32, ("prune", "distill", "tf32", "bf16", "bf16+cuda_graphs")),
    Contest("transformer", "inference", 32, ("prune", "distill", "bf16", "sparse24", "bf16+cuda_graphs")),
    *(
        Contest(name, "inference", batch, INFERENCE if name != "resnet50" else IMAGES)
        for name, batches in suite.GPU_BATCHES.items()
        for batch in batches["inference"]
        if (name, batch) not in {("resnet50", 64), ("bert", 32), ("gpt2-decode", 1), ("gpt2-prefill", 8)}
    ),
)

PIECES = ("check", "kernels", *(one.name for one in CONTESTS))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        on = target.choose(options.device)
    except LeanmarkError as error:
        return _say(f"no GPU can be used: {error}", 2)
    if not on.gpu:
        return _say("no GPU can be used here; `leanmark doctor` says what is missing", 2)
    deadline = time.monotonic() + 60 * options.minutes
    done = options.folder / "done"
    done.mkdir(parents=True, exist_ok=True)
    failed = []
    for piece in options.pieces or PIECES:
        if (done / piece).exists():
            continue
        left_s = deadline - time.monotonic()
        if left_s < _cost_s(piece):
            return _say(f"{left_s:.0f} s are left, too few for {piece}: run this again to go on", 0)
        _say(f"{piece} ({left_s:.0f} s left)", 0)
        said = _do(piece, options.folder, on, left_s)
        if said is None:
            failed.append(piece)
        else:
            (done / piece).write_text(f"{said}\n")
    return _say(f"failed: {', '.join(failed)}" if failed else "nothing is left to do", bool(failed))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pieces", nargs="*", choices=[*PIECES, []], metavar="PIECE", help=", ".join(PIECES))
    parser.add_argument("--folder", type=Path, default=Path("results"))
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args(arguments)


def _do(piece: str, folder: Path, on: Target, left_s: float) -> str | None:
    """What was written; ``None`` where it failed and is to be tried again."""
    if piece == "check":
        return _script("gpu_check.py", [str(folder / "gpu-check.json")], on, left_s)
    if piece == "kernels":
        seconds = f"{left_s - MARGIN_S:.0f}"  # it stops by itself, and goes on when it is called again
        return _script("gpu_kernels.py", ["--folder", str(folder), "--seconds", seconds], on, left_s)
    contest = next(one for one in CONTESTS if one.name == piece)
    made = plan.make(
        plan.Selection(
            workloads=(WorkloadSpec(name=contest.workload),),
            techniques=("fp32", *contest.techniques),
            backends=("eager",),
            phases=(contest.phase,),
            batches=(contest.batch,),
            device=on.device,
            gpu=on.gpu,
            threads=THREADS,
        ),
        SAMPLING,
    )
    with Campaign(made, folder, _tell) as campaign:
        campaign.run_all()
    for one in campaign.measurements:
        if one.status != "ok":
            _say(f"{one.case.id}, {one.pass_name}: {one.status}: {one.reason}", 0)
    return str(campaign.path)


def _script(name: str, arguments: list[str], on: Target, left_s: float) -> str | None:
    command = [sys.executable, str(HERE / name), *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": on.gpu}
    try:
        ended = subprocess.run(command, env=environment, timeout=left_s, check=False)
    except subprocess.TimeoutExpired:
        _say(f"{name} was stopped after {left_s:.0f} s", 0)
        return None
    return " ".join([name, *arguments]) if ended.returncode == 0 else None


def _cost_s(piece: str) -> float:
    return {"check": 60.0, "kernels": 120.0, **{one.name: one.cost_s for one in CONTESTS}}[piece]


def _tell(progress: Progress) -> None:
    print(f"gpu:   {progress.doing}", flush=True)


def _say(text: str, code: int) -> int:
    print(f"gpu: {text}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
