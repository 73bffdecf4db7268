#!/usr/bin/env python3
"""usage: scripts/gpu_kernels.py [--folder DIR] [--seconds S] [FILTER...]

The Triton kernels on this GPU: each case is checked against float64, then timed against the libraries, and
written to DIR/gpu-kernels/CASE.json, or, where it fails or is wrong, to CASE.failed. What is written is not
done again: run it until it says that nothing is left. A FILTER keeps the cases whose name contains it. Needs
no network.

All contenders of a case are CUDA graphs, replayed in turn in one process, in alternating order, on random
data. Cold: L2 is flushed before each, so weights come from memory. Hot: ten calls in a graph, per call. A
ratio is the median over the rounds of library / ours, with the 95 % interval of that median: above 1, ours is
faster. It holds for this process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu_kernel_cases import OURS, Case, cases
from torch import Tensor

from leanmark.statistics.stats import order_statistic_interval
from leanmark_kernels import triton as kernels
from leanmark_kernels.triton import choices

ROUNDS = 25
HOT_CALLS = 10
FLUSH_BYTES = 256 * 2**20
SLOWEST_CASE_S = 45.0
"""On paper, since no GPU has timed it: compiling and trying every configuration of a kernel's space."""

TOLERANCE = 2.0**-7
"""Of the largest output: two units of the last place of bfloat16."""

SENSORS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active,driver_version"

Replay = Callable[[], object]


def main() -> int:
    options = parse()
    if not torch.cuda.is_available():
        return say(
            "there is no CUDA GPU that torch can use here, and these cases can only be shown on one", 2
        )
    if not kernels.available():
        return say(f"the kernels cannot run here: {kernels.why_unavailable()}", 2)
    folder = options.folder / "gpu-kernels"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(choices.FOLDER, str(folder / "tuned"))
    end = time.monotonic() + options.seconds
    for case in chosen(options.filters):
        path, failed = folder / f"{case.name}.json", folder / f"{case.name}.failed"
        if path.exists() or failed.exists():
            continue
        if end - time.monotonic() < SLOWEST_CASE_S:
            return say(f"no time for {case.name} and what follows: run this again to go on", 1)
        try:
            found = measure(case)
        except Exception:  # of the compiler, the driver or a library: told in its file, and the others go on
            failed.write_text(traceback.format_exc())
            say(f"{case.name} FAILED: see {failed}, and delete it to try again", 1)
            torch.cuda.synchronize()  # raises where the failure broke the context: then nothing more runs
            continue
        (path if found["right"] else failed).write_text(json.dumps(found, indent=1))
        say(summary(found), 0)
    wrong = sorted(path.stem for path in folder.glob("*.failed"))
    return say(f"failed or wrong: {', '.join(wrong)}", 1) if wrong else say("nothing is left to do", 0)


def chosen(filters: Sequence[str]) -> list[Case]:
    return [case for case in cases() if not filters or any(text in case.name for text in filters)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("filters", nargs="*", metavar="FILTER")
    parser.add_argument("--folder", type=Path, default=Path("results"))
    parser.add_argument("--seconds", type=float, default=300.0)
    return parser.parse_args()


def measure(case: Case) -> dict[str, Any]:
    """Everything that is written of ``case``; without times where its result is wrong."""
    begun = time.monotonic()
    torch.manual_seed(1)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
        contest = case.build(torch.device("cuda"))
        off = error(contest.calls[OURS](), contest.exact())
        found: dict[str, Any] = {
            "case": case.name,
            "target": case.target,
            "right": off <= TOLERANCE,  # NaN is not
            "error": off,
            "bytes": contest.bytes,
            "operations": contest.operations,
            "machine": machine(),
        }
        if found["right"]:
            found["cold"] = timed({name: graph(call, 1) for name, call in contest.calls.items()}, 1, True)
            found["hot"] = timed(
                {name: graph(call, HOT_CALLS) for name, call in contest.calls.items()}, HOT_CALLS, False
            )
            found["sensors_after"] = sensors()
    torch.cuda.empty_cache()
    return {**found, "seconds": time.monotonic() - begun}


def error(output: Tensor, exact: Tensor) -> float:
    """The largest, relative to the largest magnitude of ``exact``, which is float64."""
    return float((output.double() - exact).abs().max() / exact.abs().max())


def graph(call: Callable[[], Tensor], times: int) -> Replay:
    """``times`` calls as one CUDA graph, warmed up on a stream of its own as capturing asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        for _ in range(times):
            call()
    return captured.replay


def timed(replays: Mapping[str, Replay], calls: int, cold: bool) -> dict[str, Any]:
    """Microseconds per call of each contender in each round, and what follows from them."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for replay in replays.values():
        replay()
    marks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in replays}
    for round in range(ROUNDS):
        order = list(replays) if round % 2 == 0 else list(reversed(replays))
        for name in order:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            if cold:
                flush.zero_()
            begin.record()
            replays[name]()
            end.record()
            marks[name].append((begin, end))
    torch.cuda.synchronize()
    times_us = {
        name: [1000 * begin.elapsed_time(end) / calls for begin, end in pairs]
        for name, pairs in marks.items()
    }
    ours, *others = times_us
    return {
        "times_us": times_us,
        "median_us": {name: statistics.median(times) for name, times in times_us.items()},
        "ratios": {name: ratio(times_us[name], times_us[ours]) for name in others},
    }


def ratio(library: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    rounds = [theirs / mine for theirs, mine in zip(library, ours, strict=True)]
    interval = order_statistic_interval(rounds)
    if interval is None:
        raise ValueError(f"{len(rounds)} rounds are too few for an interval")
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def machine() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "uuid": str(properties.uuid),
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "triton": version("triton"),
        "sensors_before": sensors(),
    }


def sensors() -> str:
    """What nvidia-smi says of clocks, temperature, power and throttling, or why that is unknown."""
    uuid = torch.cuda.get_device_properties(0).uuid
    command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={SENSORS}", "--format=csv"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as missing:
        return f"unknown: {missing}"


def summary(found: Mapping[str, Any]) -> str:
    if "cold" not in found:
        return f"{found['case']}: WRONG, error {found['error']:.1e}"
    ratios = ", ".join(
        f"{each['value']:.2f}x {name} [{each['low']:.2f}, {each['high']:.2f}]"
        for name, each in found["cold"]["ratios"].items()
    )
    ours = next(iter(found["cold"]["median_us"].values()))
    speed = f"{found['bytes'] / ours / 1e6:.2f} TB/s, {found['operations'] / ours / 1e6:.0f} TFLOP/s"
    off = f"error {found['error']:.1e}"
    return f"{found['case']}: {ours:.1f} us, {speed}; {off}; {ratios} (target {found['target']}x)"


def say(text: str, code: int) -> int:
    print(f"gpu_kernels: {text}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
