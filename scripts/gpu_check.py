#!/usr/bin/env python3
"""usage: scripts/gpu_check.py [--folder DIR] [--seconds S] [--rehearse] [FILTER...]

Checks on this GPU what was only checked on fakes. One line for each check in DIR/gpu-check.jsonl: ok,
unsupported (with the reason) or FAILED. What is written is not done again: run it until it says that nothing
is left. A check that crashes or hangs costs only itself. Exits with 1 where one failed or is left.

--rehearse tries the techniques that a processor knows on the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import gpu_convert
import gpu_watch
import numpy as np
import torch

from leanmark import chain, suite
from leanmark.backends.base import Executable, Work
from leanmark.backends.eager import Eager
from leanmark.devices.base import Accelerator
from leanmark.devices.cuda import visible
from leanmark.devices.gpu_probe import GpuProbe
from leanmark.devices.torch_cuda import TorchCuda
from leanmark.errors import Unsupported
from leanmark.machine.disturbance import unobserved
from leanmark.models.artifact import Artifact
from leanmark.models.fidelity import EXACT, check_float32, relative_error
from leanmark.protocol.process import die_with_parent
from leanmark.record import Phase
from leanmark.techniques.base import Context, Technique
from leanmark.worker import runner
from leanmark.workloads.base import Workload
from leanmark.workloads.decoder import Gpt2Decode
from leanmark.workloads.encoder import BertBase
from leanmark.workloads.mobilenet import MobileNetV2
from leanmark.workloads.resnet import ResNet18
from leanmark.workloads.training import outputs

MODELS: dict[str, Workload] = {
    "encoder": BertBase(width=256, heads=4, layers=2, vocabulary=100, length=32),
    "resnet": ResNet18(image=64, width=32),
    "decoder": Gpt2Decode(width=256, heads=4, layers=2, vocabulary=100, length=64),
}
CONVERTED: dict[str, Workload] = {**MODELS, "mobilenet": MobileNetV2(image=64)}
OURS = ("bf16+kernels(batch=32)", "w8(batch=32)", "w4(batch=32)", "int8-exact(batch=32)", "w4+cuda_graphs")
BATCH = 32
"""More rows than torch's 8-bit product asks for, also where each sample is one."""

PHASES: tuple[Phase, ...] = ("inference", "training")

CHECK_S = 180.0
"""A check that takes longer hangs."""

Check = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """``status`` is ok, unsupported or FAILED."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where techniques are tried; ``accelerator`` is made there, since it may start CUDA."""

    device: str
    accelerator: Callable[[], Accelerator]


def main() -> int:
    options = parse()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "gpu-check.jsonl"
    place = Place("cpu", Accelerator) if options.rehearse else Place("cuda", TorchCuda)
    wanted = {name: check for name, check in checks(place) if matches(name, options.filters)}
    if options.child:
        die_with_parent(os.getppid())
        return work(wanted, path)
    return watch(options, wanted, path)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # it is in the docstring
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER")
    parser.add_argument("--folder", type=Path, default=Path("results"))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def matches(name: str, filters: Sequence[str]) -> bool:
    return not filters or any(text in name for text in filters)


def watch(options: argparse.Namespace, wanted: Mapping[str, Check], path: Path) -> int:
    """Have a process make the checks, and another one those that it leaves when it breaks."""
    end = time.monotonic() + options.seconds
    while left := [name for name in wanted if name not in done(path)]:
        if time.monotonic() > end:
            return say(f"no time for {left[0]} and what follows: run this again to go on", 1)
        mode = ["--child", *(["--rehearse"] if options.rehearse else [])]
        command = gpu_watch.again(*mode, "--folder", str(options.folder), *options.filters)
        ended = gpu_watch.run(command, piece_s=CHECK_S, total_s=end - time.monotonic())
        if ended.why and not ended.piece:
            return say(f"{ended.why} before it began; it last said:\n{ended.said}", 1)
        if ended.why and not ended.late and ended.piece not in done(path):
            keep(Outcome(ended.piece, "FAILED", f"{ended.why}; it last said: {ended.said[-500:]}"), path)
    failed = [one.name for one in done(path).values() if one.status == "FAILED" and one.name in wanted]
    return say(f"FAILED: {'; '.join(failed)}", 1) if failed else say("nothing is left to do", 0)


def work(wanted: Mapping[str, Check], path: Path) -> int:
    """Make the checks that are not in ``path``, until the GPU is broken."""
    already = done(path)
    for name, check in wanted.items():
        if name in already:
            continue
        gpu_watch.begin(name)
        found = outcome(name, check)
        keep(found, path)
        if found.status == "FAILED" and torch.cuda.is_initialized():
            torch.cuda.synchronize()  # raises where the failure broke the context
    return 0


def done(path: Path) -> dict[str, Outcome]:
    lines = path.read_text().splitlines() if path.exists() else []
    found = [Outcome(**json.loads(line)) for line in lines]
    return {one.name: one for one in found}


def keep(found: Outcome, path: Path) -> None:
    with path.open("a") as file:
        file.write(json.dumps(asdict(found)) + "\n")
    say(f"{found.status:12} {found.name}: {found.detail}", 0)


def say(text: str, code: int) -> int:
    print(f"gpu_check: {text}", flush=True)
    return code


def outcome(name: str, check: Check) -> Outcome:
    try:
        return Outcome(name, "ok", check())
    except Unsupported as error:
        return Outcome(name, "unsupported", str(error))
    except Exception as error:  # whatever fails is the result, and the next check goes on
        traceback.print_exc()
        return Outcome(name, "FAILED", f"{type(error).__name__}: {error}".partition("\n")[0])


def checks(place: Place) -> Iterator[tuple[str, Check]]:
    """Quick ones first; those that torch.compile takes its time for are last, but for what is a piece of its
    own."""
    if place.device == "cuda":
        yield "board", board
        yield "conditions", conditions
        yield "device time against the wall clock", times
        yield "cold against hot", cold
        yield "memory of the allocator", memory
        yield "out of memory is survived", out_of_memory
    texts = dict.fromkeys((*suite.GPU_TECHNIQUES, "cuda_graphs", "channels_last", *OURS))
    for compiled, phase in product((False, True), PHASES):
        for (name, workload), text in product(MODELS.items(), texts):
            if ("compile" in text) == compiled and possible(text, phase, place.device):
                yield f"{name} {phase} {text}", technique(workload, text, phase, place)
    yield from gpu_convert.checks(CONVERTED, place.device)


def board() -> str:
    [first, *_] = visible()
    facts = TorchCuda().facts()
    assert facts["gpu"] == first.name, f"torch sees {facts['gpu']}, the driver lists {first.name} first"
    assert facts["gpu_uuid"] == first.uuid, f"torch names it {facts['gpu_uuid']}, the driver {first.uuid}"
    return f"{first.name}, {first.uuid}, driver {first.driver}, torch {torch.__version__}"


def conditions() -> str:
    probe = GpuProbe(visible()[0].uuid)
    sample = probe.read()
    return f"{sample}; not told: {', '.join(unobserved(sample)) or 'nothing'}; {dict(probe.conditions())}"


def multiply(size: int) -> Callable[[], None]:
    left, right, out = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(3))

    def step() -> None:
        torch.mm(left, right, out=out)

    return step


def times() -> str:
    """A long product is device-bound, so both clocks agree; a short one is not, so they differ."""
    device, found = TorchCuda(), []
    for size in (8192, 64):
        step = multiply(size)
        loops = runner.warm_up(step, 2.0, 0.05, device).loops
        block = runner.with_device_times(step, loops, runner.run_block(step, loops, device), device)
        assert block.device_s is not None
        found.append((block.wall_s / loops, block.device_s))
    (long_wall, long_device), (short_wall, short_device) = found
    assert 0.9 < long_device / long_wall < 1.1, f"8192: {long_wall:.3g} s and {long_device:.3g} s"
    assert short_device < short_wall, f"64: {short_wall:.3g} s and {short_device:.3g} s"
    rate = 2 * 8192**3 / long_device / 1e12
    return (
        f"8192: {long_wall:.4g} / {long_device:.4g} s ({rate:.0f} TFLOP/s); "
        f"64: {short_wall:.3g} / {short_device:.3g} s"
    )


def cold() -> str:
    device = TorchCuda()
    data = torch.randn(8 * 2**20 // 4, device="cuda")  # fits into the L2 cache of an H200

    def step() -> None:
        data.mul_(1.0)

    block = runner.with_device_times(step, 100, runner.run_block(step, 100, device), device)
    assert block.device_s is not None and block.cold_device_s is not None
    assert block.cold_device_s > block.device_s, (
        f"hot {block.device_s:.3g} s, cold {block.cold_device_s:.3g} s"
    )
    return f"hot {block.device_s:.3g} s, cold {block.cold_device_s:.3g} s"


def memory() -> str:
    device = TorchCuda()
    device.start_memory()
    before = device.memory()["gpu_peak_memory_bytes"]
    kept = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    found = device.memory()
    grown = found["gpu_peak_memory_bytes"] - before
    assert grown == kept.nbytes, f"{kept.nbytes} bytes were made and {grown} counted"
    return str(dict(found))


def out_of_memory() -> str:
    try:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        torch.ones(1, device="cuda").item()
        return str(error).partition("\n")[0]
    raise AssertionError("a pebibyte was allocated")


def possible(text: str, phase: Phase, device: str) -> bool:
    links = [chain.build(link) for link in chain.parse(text)]
    return all(phase in one.phases and "eager" in one.backends and device in one.devices for one in links)


def technique(workload: Workload, text: str, phase: Phase, place: Place) -> Check:
    links = tuple(chain.build(link) for link in chain.parse(text))

    def check() -> str:
        with tempfile.TemporaryDirectory() as folder:
            executable, expected, tolerance = opened(workload, links, phase, Artifact(Path(folder)), place)
            executable.step()
            ran = executable.executed()
            assert ran.device == place.device, f"it ran on {ran.device}"
            for one in links:
                one.verify_executed(ran)
            if not any(one.lowers_precision for one in links):
                check_float32(ran.operators)
            error = relative_error(executable.predict(workload.dataset().test.inputs.numpy()), expected)
            assert error <= tolerance, f"outputs are off by {error:.2g}, {tolerance:g} is allowed"
            timed = runner.run_block(executable.step, 10, place.accelerator())
            return f"off by {error:.1e}, {timed.wall_s / 10:.3g} s a step, ran {dict(ran.operators)}"

    return check


def opened(
    workload: Workload, links: tuple[Technique, ...], phase: Phase, artifact: Artifact, place: Place
) -> tuple[Executable, np.ndarray, float]:
    """The chain made ready, the float32 outputs that it must keep on the CPU, and how closely."""
    model = baseline = workload.model().eval()
    anchor, tolerance = model, EXACT
    for one in links:
        after = one.apply(model, Context(workload=workload, baseline=baseline, device=place.device))
        one.verify(model, after)
        if one.retrains:
            anchor, tolerance = after, EXACT
        tolerance, model = max(tolerance, one.tolerance), after.cpu()  # each link finds it there
    artifact.save_module(model)
    split = workload.dataset().train
    work = Work(
        phase=phase,
        inputs=split.inputs[:BATCH].numpy(),
        targets=split.targets[:BATCH].numpy(),
        threads=torch.get_num_threads(),
        device=place.device,
        workload=workload,
        techniques=links,
        accelerator=place.accelerator(),
    )
    expected = outputs(anchor.cpu().eval(), workload.dataset().test.inputs).numpy()
    return Eager().open(artifact, work), expected, tolerance


if __name__ == "__main__":
    sys.exit(main())
