"""Compiles a share of all configurations for GPUs that are not here: ``triton_ahead.py SHARE SHARES``.

Prints one JSON line for each: what it is, and what is known of the machine code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from triton_compile import compile_launch
from triton_problems import Example, large

from leanmark_kernels.triton import device_limits
from leanmark_kernels.triton.configuration import Config
from leanmark_kernels.triton.device_limits import SHARED_BYTES, Limits
from leanmark_kernels.triton.kernel import Kernel
from leanmark_kernels.triton.packing import UNIT


def main(share: int, shares: int) -> None:
    assert not unreached(), f"no large problem is solved with {unreached()}"
    work = [
        (capability, example, kernel, config)
        for capability in SHARED_BYTES
        for example, kernel, config in legal(capability)
    ]
    for capability, example, kernel, config in work[share::shares]:
        limits = device_limits.on_paper(capability)
        launch, *others = kernel.launches(example.problem, config, limits)
        found = compile_launch(launch, capability)
        for other in others:  # what adds up split sums is held to nothing but that it can be compiled
            compile_launch(other, capability)
        facts = {**described(kernel.name, capability, config), **asdict(found)}
        print(json.dumps({"name": f"{kernel.name} {example.name} {facts['gpu']} {config}", **facts}))


def described(kernel: str, capability: tuple[int, int], config: Config) -> dict[str, Any]:
    """What the gates have to know of a configuration.

    ``weights_per_thread`` are those of a step of the weight-only kernels, which are bound by what it takes to
    unpack each weight, ``outputs`` those of a depthwise program.
    """
    blocks = dict(config.blocks)
    per_sm = blocks.get("PER_SM", 1)
    return {
        "kernel": kernel,
        "gpu": f"sm_{capability[0]}{capability[1]}",
        "capability": capability[0],
        "limit": device_limits.on_paper(capability).shared_by(per_sm).shared_bytes,
        "block_m": blocks.get("BLOCK_M"),
        "weights_per_thread": blocks.get("BLOCK_N", 0) * UNIT * blocks.get("UNITS", 1) / (32 * config.warps),
        "outputs": blocks.get("STRIPS", 0) * blocks.get("BLOCK_W", 0) * blocks.get("BLOCK_C", 0),
        "threads": 32 * config.warps,
        "per_sm": per_sm,
    }


def unreached() -> set[str]:
    """The configurations that would never be compiled, since no large problem admits them on Hopper."""
    limits = device_limits.on_paper((9, 0))
    pairs = [(kernel, example.problem) for example in large() for kernel in example.kernels]
    space = {f"{kernel.name} {each}" for kernel, _ in pairs for each in kernel.space}
    return space - {f"{kernel.name} {each}" for kernel, it in pairs for each in kernel.legal(it, limits)}


def legal(capability: tuple[int, int]) -> Iterator[tuple[Example, Kernel, Config]]:
    """Every configuration that the code admits for one of the large problems, each machine code once."""
    limits = device_limits.on_paper(capability)
    seen = set()
    for example in large():
        for kernel in example.kernels:
            for config in kernel.legal(example.problem, limits):
                same_code = (kernel.name, example.name, code_of(example, kernel, config, limits))
                if same_code not in seen:
                    seen.add(same_code)
                    yield example, kernel, config


def code_of(example: Example, kernel: Kernel, config: Config, limits: Limits) -> str:
    """What tells the machine code of two launches apart: SPLIT_K shapes the grid, not the code."""
    launch = kernel.launches(example.problem, config, limits)[0]
    return f"{launch.compiled_in()} {config.warps} {config.stages}"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
