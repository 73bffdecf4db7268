#!/usr/bin/env python3
"""usage: scripts/gpu.py [--folder DIR] [--minutes M] [--device cuda:N] [--rehearse] [PIECE...]

Everything that only a GPU can show, in pieces, the most telling first: checks of what fakes stood in for
(`check-first`, `convert` for conversion, `check` for the rest of them), the Triton kernels (`kernels-first`,
one case of each, and `kernels`), and contests. Records are under DIR. What is done is not done again: run it
until it says that nothing is left. A piece is begun only where its time is left, and one that fails, crashes
or hangs costs only itself. Needs no network. From a checkout that is not installed:

  PYTHONPATH=$PWD/bench:$PWD/kernels python3 scripts/gpu.py

--rehearse goes through all kinds of pieces on the processor, with small models and numbers without meaning.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gpu_watch

from leanmark import plan
from leanmark.errors import LeanmarkError
from leanmark.measuring import target
from leanmark.measuring.campaign import Campaign
from leanmark.measuring.target import Target
from leanmark.progress import Progress
from leanmark.protocol.messages import WorkloadSpec
from leanmark.protocol.process import allowed_cores
from leanmark.record import Phase

HERE = Path(__file__).parent

MARGIN_S = 20.0
"""To end in."""

MOST_THREADS = 8
"""Of the host: models are prepared on it, and reference outputs computed."""

SAMPLING = replace(plan.QUICK, memory_steps=3)

ANSWER_S = 180.0
"""What compiling a model may take; what takes longer hangs."""

FLOATS = ("tf32", "bf16", "fp16", "bf16+cuda_graphs", "bf16+compile")
FEWER_BITS = ("bf16", "fp8", "int8dq", "int8wo", "int4wo", "sparse24")
ONE_ROW = tuple("int8-exact" if name == "int8dq" else name for name in FEWER_BITS)
"""torch's 8-bit product asks for more than 16 rows; ours takes any number."""
OURS = ("kernels", "w8", "w4", "int8-exact")
TRAINING = ("tf32", "bf16", "fp16", "bf16+compile", "fused_optimizer", "checkpointing", "bf16+cuda_graphs")
IMAGES = ("tf32", "bf16", "fp16", "bf16+channels_last", "bf16+channels_last+compile", "bf16+cuda_graphs")


@dataclass(frozen=True, slots=True)
class Contest:
    """Small enough for two or three in ten minutes; ``part`` tells those of one workload and batch apart."""

    workload: str
    phase: Phase
    batch: int
    techniques: tuple[str, ...]
    part: str = ""

    @property
    def name(self) -> str:
        return f"{self.workload}-{self.phase}-{self.batch}{self.part}"

    @property
    def cost_s(self) -> float:
        """About how long it takes (on paper: no GPU has timed this); each is opened in three processes."""
        compiled = sum("compile" in text for text in self.techniques)
        tuned = sum("batch=" in text or text in OURS for text in self.techniques)
        return 40.0 + 36.0 * (2 + len(self.techniques)) + 40.0 * compiled + 30.0 * tuned


def _both(workload: str, batch: int, rows: int) -> Iterator[Contest]:
    """A language model in inference, whose linear layers have ``rows`` rows."""
    yield Contest(workload, "inference", batch, FLOATS)
    yield Contest(workload, "inference", batch, FEWER_BITS if rows > 16 else ONE_ROW, "-fewer-bits")


def _replayed(workload: str, batch: int, *techniques: str) -> Contest:
    """Our operators among a library's in inference, all as CUDA graphs, as their kernels can be short.

    Autocast converts its weights in every step, which is part of a gain over ``bf16``; what torchao quantizes
    is otherwise in bfloat16, as ours is.
    """
    sized = (f"{text}(batch={min(batch, 32)})" if text.endswith(OURS) else text for text in techniques)
    return Contest(workload, "inference", batch, tuple(f"{text}+cuda_graphs" for text in sized), "-replayed")


CONTESTS = (
    *_both("bert", 32, 4096),
    _replayed("gpt2-decode", 1, "bf16", "bf16+kernels", "w8", "int8wo", "w4", "int4wo"),
    _replayed("resnet50", 64, "bf16", "bf16+channels_last", "bf16+kernels", "int8-exact"),
    _replayed("bert", 32, "bf16", "bf16+kernels", "w8", "int8-exact", "int8dq"),
    Contest("bert", "training", 32, TRAINING),
    Contest("resnet50", "inference", 64, IMAGES),
    *_both("gpt2-decode", 1, 1),
    Contest("resnet50", "training", 64, (*TRAINING, "bf16+channels_last")),
    *_both("gpt2-prefill", 8, 4096),
    Contest("gpt2-prefill", "training", 8, TRAINING),
    Contest("cnn", "inference", 32, ("prune", "distill", "tf32", "bf16", "bf16+cuda_graphs")),
    Contest("transformer", "inference", 32, ("prune", "distill", "bf16", "sparse24", "bf16+cuda_graphs")),
    Contest("resnet50", "inference", 1, IMAGES),
    Contest("resnet50", "inference", 256, IMAGES),
    *_both("bert", 1, 128),
    *_both("gpt2-prefill", 1, 512),
    *_both("gpt2-decode", 32, 32),
    _replayed("gpt2-decode", 32, "bf16", "bf16+kernels", "w8", "w4", "int8-exact", "int8dq"),
    _replayed("resnet50", 1, "bf16", "bf16+channels_last", "bf16+kernels"),
    _replayed("bert", 1, "bf16", "bf16+kernels", "w8", "w4", "int8-exact"),
)
REHEARSED = (Contest("mlp", "inference", 4, ("bf16", "kernels(batch=4)")),)

FIRST_CHECKS = (
    "board",
    "conditions",
    "time",
    "cold",
    "memory",
    "encoder inference fp",
    "encoder inference tf32",
    "convert decoder w4 of 1",
    "convert encoder fp32",
)
FIRST_KERNELS = 11
"""One case of each kind."""

COSTS_S = {"check-first": 100.0, "kernels-first": 90.0, "convert": 120.0, "check": 60.0, "kernels": 60.0}
PIECES = (
    "check-first", "kernels-first", CONTESTS[0].name, "convert", "kernels", "check",
    *(one.name for one in CONTESTS[1:]),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        on = Target("cpu") if options.rehearse else target.choose(options.device)
    except LeanmarkError as error:
        return _say(f"no GPU can be used: {error}", 2)
    if not on.gpu and not options.rehearse:
        return _say("no GPU can be used here; `leanmark doctor` says what is missing", 2)
    if options.contest:
        return _contest(options.contest, options.folder, on)
    return _do_all(options, on)


def _do_all(options: argparse.Namespace, on: Target) -> int:
    deadline = time.monotonic() + 60 * options.minutes
    done = options.folder / "done"
    done.mkdir(parents=True, exist_ok=True)
    contests = REHEARSED if options.rehearse else CONTESTS
    costs_s = {**COSTS_S, **{one.name: one.cost_s for one in contests}}
    everything = [*COSTS_S, *(one.name for one in contests)] if options.rehearse else PIECES
    failed, left = [], []
    for piece in options.pieces or everything:
        if (done / piece).exists():
            continue
        left_s = deadline - time.monotonic()
        if left_s < costs_s[piece]:
            left.append(piece)
            continue
        _say(f"{piece} ({left_s:.0f} s left)", 0)
        if _do(piece, options, on, left_s):
            (done / piece).touch()
        else:
            failed.append(piece)
    if left:
        _say(f"too little time for {', '.join(left)}: run this again to go on", 0)
    if failed:
        return _say(f"failed or not finished: {', '.join(failed)}", 1)
    return 0 if left else _say("nothing is left to do", 0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # it is in the docstring
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    names = [*PIECES, *(one.name for one in REHEARSED)]
    parser.add_argument("pieces", nargs="*", choices=[*names, []], metavar="PIECE", help=", ".join(PIECES))
    parser.add_argument("--folder", type=Path, default=Path("results"))
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--contest", choices=names, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _do(piece: str, options: argparse.Namespace, on: Target, left_s: float) -> bool:
    """Whether it was finished, by a process of its own."""
    folder = ["--folder", str(options.folder), *(["--rehearse"] if options.rehearse else [])]
    seconds = ["--seconds", f"{min(left_s - MARGIN_S, 1000.0):.0f}"]  # they stop by themselves
    commands = {
        "check-first": ["gpu_check.py", *folder, *seconds, *FIRST_CHECKS],
        "check": ["gpu_check.py", *folder, *seconds, *(FIRST_CHECKS if options.rehearse else [])],
        "convert": ["gpu_check.py", *folder, *seconds, "convert encoder" if options.rehearse else "convert"],
        "kernels-first": ["gpu_kernels.py", *folder, *seconds, "--first", str(FIRST_KERNELS)],
        "kernels": ["gpu_kernels.py", *folder, *seconds],
    }
    command = commands.get(piece, ["gpu.py", *folder, "--contest", piece])  # it sees this GPU only
    return _run(command, on, left_s - MARGIN_S / 2)


def _run(command: Sequence[str], on: Target, seconds: float) -> bool:
    name, *arguments = command
    whole = [sys.executable, str(HERE / name), *arguments]
    ended = gpu_watch.run(
        whole,
        piece_s=seconds,
        total_s=seconds,
        grace_s=MARGIN_S / 4,
        environment={**os.environ, "CUDA_VISIBLE_DEVICES": on.gpu},
    )
    if ended.why:
        _say(f"{name}: {ended.why}", 0)
    return not ended.why


def _contest(name: str, folder: Path, on: Target) -> int:
    contest = next(one for one in (*CONTESTS, *REHEARSED) if one.name == name)
    made = plan.make(
        plan.Selection(
            workloads=(WorkloadSpec(name=contest.workload),),
            techniques=("fp32", *contest.techniques),
            backends=("eager",),
            phases=(contest.phase,),
            batches=(contest.batch,),
            device=on.device,
            gpu=on.gpu,
            threads=min(MOST_THREADS, len(allowed_cores())) if on.gpu else 1,
        ),
        SAMPLING,
    )
    made = replace(made, sampling=replace(made.sampling, timeout_s=ANSWER_S))
    with Campaign(made, folder, _tell) as campaign:
        _say(f"writing {campaign.path}", 0)
        campaign.run_all()
    for one in campaign.measurements:
        if one.status != "ok":
            _say(f"{one.case.id}, {one.pass_name}: {one.status}: {one.reason}", 0)
    return 0


def _tell(progress: Progress) -> None:
    print(f"gpu:   {progress.doing}", flush=True)


def _say(text: str, code: int) -> int:
    print(f"gpu: {text}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
