"""Invented but plausible records of one run: every status, every provenance, both phases."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from leanmark.record import (
    Block,
    Case,
    Cost,
    Environment,
    Finding,
    Measurement,
    ModelFacts,
    Provenance,
    Quality,
    Run,
    SamplingPlan,
    Series,
)
from leanmark.store import Records

TECHNIQUES = {"fp32": 1.0, "prune(ratio=0.5)": 0.55, "bf16": 1.01, "distill": 0.31}
QUALITY = {"fp32": (0, 0), "prune(ratio=0.5)": (2, 5), "bf16": (1, 1), "distill": (3, 41)}
COUNT, CORRECT = 450, 436


def run(*, id: str = "7f3a", **changes: object) -> Run:
    fields: dict[str, object] = {
        "id": id,
        "started": "2026-11-21T09:14:03Z",
        "leanmark": "0.1.0",
        "commit": "1f2e3d4c5b6a",
        "command": ("leanmark", "run", "cnn", "--technique", "prune(ratio=0.5)"),
        "environment": environment(),
        "plan": SamplingPlan(
            profile="standard",
            processes=5,
            rounds=20,
            block_s=0.01,
            warmup_s=2.0,
            memory_processes=1,
            memory_steps=20,
            energy_window_s=2.0,
            timeout_s=120.0,
        ),
    }
    return Run(**{**fields, **changes})  # type: ignore[arg-type]


def environment(**machine: str | int | None) -> Environment:
    return Environment(
        machine={"cpu": "AMD EPYC 9R14", "cores": 2, "memory_gib": 24, "architecture": "x86_64", **machine},
        software={"python": "3.11.4", "torch": "2.13.0+cpu", "onnxruntime": "1.31.1", "pynvml": None},
        conditions={"governor": None, "load_1min": 0.12, "virtual_machine": True},
    )


def latency(
    value: float, *, processes: int = 5, rounds: int = 20, seed: str = "0", sd: float = 0.01
) -> Series:
    """Blocks around ``value`` seconds with a scatter of ``sd`` between and within processes."""
    draw = random.Random(seed)
    blocks = []
    for process in range(processes):
        centre = value * math.exp(draw.gauss(0, sd / 2))
        for round_ in range(rounds):
            blocks.append(
                Block(
                    process=process,
                    round=round_,
                    order=draw.randrange(4),
                    value=centre * math.exp(draw.gauss(0, sd)),
                    loops=50,
                    start_s=float(process * rounds + round_),
                )
            )
    return Series(metric="latency_s", meter="wall", blocks=tuple(blocks))


def single(metric: str, value: float, meter: str, **changes: object) -> Series:
    block = Block(process=0, round=0, order=0, value=value, loops=1, start_s=0.0)
    return Series(metric=metric, meter=meter, blocks=(block,), **changes)  # type: ignore[arg-type]


def prepared(case: Case) -> Measurement:
    """The model of a case: made once, in a case of its own, for whatever phase and batch follow."""
    scale = TECHNIQUES.get(case.technique, 0.5)
    return Measurement(
        run="7f3a",
        case=replace(case, phase="inference", batch=1),
        pass_name="prepare",
        status="ok",
        work="work/prepare",
        model=ModelFacts(
            parameters=round(28_000 * scale), macs=round(1_200_000 * scale), size_bytes=round(118_000 * scale)
        ),
        cost=Cost(time_s=41.3, energy_reason="no meter of energy is available"),
        executed={"verified": {"removed_channels": 48}} if "prune" in case.technique else {},
    )


def passes(case: Case, step_s: float, *, processes: int = 5) -> list[Measurement]:
    """The latency, memory and energy passes of a case that works."""
    scale = TECHNIQUES.get(case.technique, 0.5)
    gained, lost = QUALITY.get(case.technique, (1, 3))
    common = {"run": "7f3a", "case": case, "status": "ok", "work": f"work/{case.phase}/{case.batch}"}
    correct = CORRECT + gained - lost
    quality = Quality(
        metric="accuracy",
        value=correct / COUNT,
        count=COUNT,
        correct=correct,
        gained=gained,
        lost=lost,
        agreement=1 - (gained + lost) / COUNT,
        relative_error=0.0 if case.technique == "fp32" else 0.012,
    )
    imported = 190e6 if case.backend == "eager" else 62e6
    return [
        Measurement(
            **common,  # type: ignore[arg-type]
            pass_name="latency",
            contest="/".join(case.pair_key),
            series=(
                latency(step_s, processes=processes, seed=case.id),
                single("cold_start_s", 40 * step_s, "wall"),
            ),
            quality=quality,
            executed={
                "operators": {"aten::convolution": 7, "aten::addmm": 1},
                "threads": 1,
                "device": "cpu",
                "processes": [{"cores": [process % 2], "wait": "passive"} for process in range(processes)],
            },
        ),
        Measurement(
            **common,  # type: ignore[arg-type]
            pass_name="memory",
            series=(
                single("peak_memory_bytes", imported + 20e6 * scale, "host_memory"),
                single("import_memory_bytes", imported, "host_memory"),
                single("working_memory_bytes", 20e6 * scale, "host_memory"),
            ),
        ),
        Measurement(
            **common,  # type: ignore[arg-type]
            pass_name="energy",
            series=(
                single(
                    "energy_j",
                    step_s * 21.4,
                    "codecarbon",
                    provenance=Provenance.ESTIMATED_MODEL,
                    scope="machine",
                ),
            ),
        ),
    ]


def to_target(
    case: Case, seconds: Sequence[float], *, run: str = "7f3a", target: float = 0.97
) -> Measurement:
    """Training runs that took so many ``seconds``, one for each seed, at 50 W."""

    def series(metric: str, meter: str, values: Iterable[float]) -> Series:
        blocks = tuple(
            Block(process=seed, round=0, order=0, value=value, loops=1, start_s=0.0)
            for seed, value in enumerate(values)
        )
        return Series(metric=metric, meter=meter, blocks=blocks)

    runs = [
        {"seed": seed, "epochs": 2, "qualities": [0.5, target], "time_s": each, "looking_s": 0.0}
        for seed, each in enumerate(seconds)
    ]
    return Measurement(
        run=run,
        case=replace(case, phase="training", batch=1),
        pass_name="quality_run",
        status="ok",
        work="w",
        contest=run,
        series=(
            series("run_to_quality_s", "wall", seconds),
            series("run_to_quality_j", "rapl", (50.0 * each for each in seconds)),
        ),
        executed={"metric": "accuracy", "target": target, "longest": 4, "runs": runs},
    )


def stopped(case: Case, status: str, reason: str, pass_name: str = "latency") -> Measurement:
    return Measurement(
        run="7f3a",
        case=case,
        pass_name=pass_name,  # type: ignore[arg-type]
        status=status,  # type: ignore[arg-type]
        work=f"work/{case.phase}/{case.batch}",
        reason=reason,
    )


def measurements() -> list[Measurement]:
    cnn = Case(workload="cnn")
    graph = replace(cnn, backend="onnxruntime")
    chain = "prune(ratio=0.5)+int8"
    found = [prepared(replace(cnn, technique=technique)) for technique in TECHNIQUES]
    found += [prepared(replace(graph, technique=name)) for name in ("fp32", "prune(ratio=0.5)", chain)]
    for technique, scale in TECHNIQUES.items():
        found += passes(replace(cnn, technique=technique), 187e-6 * scale)
    for technique, scale in {"fp32": 1.0, chain: 0.42}.items():
        found += passes(replace(graph, technique=technique), 63e-6 * scale)
    found += [
        stopped(replace(cnn, technique="int8"), "skipped", "int8 runs in onnxruntime only"),
        stopped(replace(graph, technique="bf16"), "invalid", "no operator computed in bfloat16 [0 of 8]"),
    ]
    for technique, scale in {"fp32": 1.0, "bf16": 0.93, "prune(ratio=0.5)": 0.6}.items():
        case = replace(cnn, technique=technique, phase="training", batch=32)
        timed, memory, _ = passes(case, 4.1e-3 * scale, processes=2)
        found += [timed, memory, stopped(case, "skipped", "the time budget ended", "energy")]
    doubt = Finding(code="not-steady", message="1 of 2 processes were still warming up when their time ended")
    found[-3] = replace(found[-3], findings=(doubt,))
    return found


def records() -> Records:
    return Records(path=Path("synthetic.jsonl"), run=run(), measurements=tuple(measurements()))
