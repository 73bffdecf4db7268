#!/usr/bin/env python3
"""usage: scripts/gpu_check.py FILE    check on this GPU what was only checked on fakes; write it to FILE

One line for each check: ok, unsupported (with the reason) or FAILED. Exits with 1 where one failed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from leanmark import chain, suite
from leanmark.backends.base import Executable, Work
from leanmark.backends.eager import Eager
from leanmark.devices.cuda import visible
from leanmark.devices.gpu_probe import GpuProbe
from leanmark.devices.torch_cuda import TorchCuda
from leanmark.errors import Unsupported
from leanmark.machine.disturbance import unobserved
from leanmark.models.artifact import Artifact
from leanmark.models.fidelity import EXACT, relative_error
from leanmark.record import Phase
from leanmark.techniques.base import Context, Technique
from leanmark.worker import runner
from leanmark.workloads.base import Workload
from leanmark.workloads.encoder import BertBase
from leanmark.workloads.resnet import ResNet18
from leanmark.workloads.training import outputs

MODELS: dict[str, Workload] = {
    "encoder": BertBase(width=256, heads=4, layers=2, vocabulary=100, length=32),
    "resnet": ResNet18(image=64, width=32),
}
BATCH = 16

Check = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    status: str
    detail: str


def main() -> None:
    found = []
    for name, check in checks():
        found.append(outcome(name, check))
        print(f"{found[-1].status:12} {name}: {found[-1].detail}", flush=True)
    Path(sys.argv[1]).write_text(json.dumps([vars_of(one) for one in found], indent=1))
    sys.exit(any(one.status == "FAILED" for one in found))


def vars_of(one: Outcome) -> dict[str, str]:
    return {"name": one.name, "status": one.status, "detail": one.detail}


def outcome(name: str, check: Check) -> Outcome:
    try:
        return Outcome(name, "ok", check())
    except Unsupported as error:
        return Outcome(name, "unsupported", str(error))
    except Exception as error:  # whatever fails is the result, and the next check goes on
        traceback.print_exc()
        return Outcome(name, "FAILED", f"{type(error).__name__}: {error}".partition("\n")[0])


def checks() -> Iterator[tuple[str, Check]]:
    yield "board", board
    yield "conditions", conditions
    yield "device time against the wall clock", times
    yield "cold against hot", cold
    yield "memory of the allocator", memory
    yield "out of memory is survived", out_of_memory
    for name, workload in MODELS.items():
        for text in dict.fromkeys((*suite.GPU_TECHNIQUES, "cuda_graphs", "channels_last")):
            for phase in ("inference", "training"):
                if possible(text, phase):
                    yield f"{name} {phase} {text}", technique(workload, text, phase)


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


def possible(text: str, phase: Phase) -> bool:
    links = [chain.build(link) for link in chain.parse(text)]
    return all(phase in one.phases and "eager" in one.backends for one in links)


def technique(workload: Workload, text: str, phase: Phase) -> Check:
    links = tuple(chain.build(link) for link in chain.parse(text))

    def check() -> str:
        with tempfile.TemporaryDirectory() as folder:
            executable, expected, tolerance = opened(workload, links, phase, Artifact(Path(folder)))
            executable.step()
            ran = executable.executed()
            assert ran.device == "cuda", f"it ran on {ran.device}"
            for one in links:
                one.verify_executed(ran)
            error = relative_error(executable.predict(workload.dataset().test.inputs.numpy()), expected)
            assert error <= tolerance, f"outputs are off by {error:.2g}, {tolerance:g} is allowed"
            timed = runner.run_block(executable.step, 10, TorchCuda())
            return f"off by {error:.1e}, {timed.wall_s / 10:.3g} s a step, ran {dict(ran.operators)}"

    return check


def opened(
    workload: Workload, links: tuple[Technique, ...], phase: Phase, artifact: Artifact
) -> tuple[Executable, np.ndarray, float]:
    """The chain made ready, the float32 outputs that it must keep on the CPU, and how closely."""
    model = baseline = workload.model().eval()
    anchor, tolerance = model, EXACT
    for one in links:
        after = one.apply(model, Context(workload=workload, baseline=baseline))
        one.verify(model, after)
        if one.retrains:
            anchor, tolerance = after, EXACT
        tolerance, model = max(tolerance, one.tolerance), after
    artifact.save_module(model)
    split = workload.dataset().train
    work = Work(
        phase=phase,
        inputs=split.inputs[:BATCH].numpy(),
        targets=split.targets[:BATCH].numpy(),
        threads=torch.get_num_threads(),
        device="cuda",
        workload=workload,
        techniques=links,
        accelerator=TorchCuda(),
    )
    expected = outputs(anchor.cpu().eval(), workload.dataset().test.inputs).numpy()
    return Eager().open(artifact, work), expected, tolerance


if __name__ == "__main__":
    main()
