"""Every configuration of every Triton kernel, compiled for GPUs that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]

PROGRAM = Path(__file__).with_name("triton_ahead.py")
SHARES = min(os.cpu_count() or 1, 4)
TIMEOUT_S = 1200
ONE_SPILL_BYTES = 8
"""Now and then the assembler keeps one address on the stack across the loop: read once, outside it."""

REGISTERS = 65536
"""Of a multiprocessor, for all programs on it."""

INSTRUCTIONS_PER_OUTPUT = 24
"""Of a depthwise convolution of 3 x 3, its loop counted once: what memory leaves time for."""

OVERLAPPING = {"descriptor_gemm", "gemm", "conv2d"}
"""Of these a step on Hopper starts its products before those of the last are done. Triton does no such thing
for sums in integers, and here and there the assembler lets no product begin before the last has ended."""

FEW_ROWS = 32
INSTRUCTIONS_PER_WEIGHT = 4.6
"""An H200 starts 132 multiprocessors x 4 warps x 32 lanes of them 1.755e9 times a second. Three times cuBLAS,
which reads two bytes per weight at 4.3 TB/s, are 6.4e12 weights a second: that many each, in all."""

MATRIX_FREE = {"depthwise", "quantize"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment.pop("TRITON_INTERPRET", None)

    def share(number: int) -> list[str]:
        command = [sys.executable, str(PROGRAM), str(number), str(SHARES)]
        return subprocess.run(
            command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
        ).stdout.splitlines()

    with ThreadPoolExecutor(SHARES) as pool:
        return [json.loads(line) for lines in pool.map(share, range(SHARES)) for line in lines]


def complaints(found: dict[str, Any]) -> list[str]:
    """What is wrong with one compiled configuration."""
    counts, wrong = found["counts"], []
    if found["stack_bytes"] > ONE_SPILL_BYTES:
        wrong.append(f"{found['stack_bytes']} bytes of spilled registers")
    if found["shared_bytes"] > found["limit"]:
        wrong.append(f"{found['shared_bytes']} bytes of shared memory")
    if found["kernel"] not in MATRIX_FREE and not any(counts[name] for name in matrix_products(found)):
        wrong.append(f"no {' or '.join(matrix_products(found))}")
    if not any(counts[name] for name in loads(found)):
        wrong.append(f"no {' or '.join(loads(found))}")
    if found["registers"] * found["threads"] * found["per_sm"] > REGISTERS:
        wrong.append(f"{found['registers']} registers, with {found['per_sm']} programs side by side")
    return wrong + slow_code(found)


def slow_code(found: dict[str, Any]) -> list[str]:
    """What in the machine code would cost time, though it is right."""
    wrong, loop, count = [], found["code"]["multiplying"], found["code"]["instructions"]
    if loop and loop["LDL"] + loop["STL"] > 0:
        wrong.append("registers spill within the loop that multiplies")
    if loop and found["kernel"] == "conv2d" and loop["MUFU.RCP"] > 0:
        wrong.append("the loop that multiplies divides by a number that is not compiled in")
    if loop and found["kernel"] in OVERLAPPING and on_hopper(found) and not loop["gsb0, 0x1"]:
        wrong.append("each step waits for its own products")
    if count * found["threads"] > INSTRUCTIONS_PER_OUTPUT * found["outputs"] > 0:
        wrong.append(f"{count} instructions for {found['outputs']} outputs of a program")
    return wrong


def on_hopper(found: dict[str, Any]) -> bool:
    """Whether it can multiply as only Hopper does, which takes 64 rows."""
    return found["capability"] == 9 and (found["block_m"] or 0) >= 64


def matrix_products(found: dict[str, Any]) -> tuple[str, ...]:
    """The instructions of which one must be there: Hopper's own from 64 rows on, Ampere's below.

    The rows of ``weight_only`` are the columns of what it multiplies.
    """
    if on_hopper(found) or (found["capability"] == 9 and found["kernel"] == "weight_only"):
        return ("wgmma.mma_async",)
    return ("tcgen05.mma", "mma.sync") if found["capability"] == 10 else ("mma.sync",)


def loads(found: dict[str, Any]) -> tuple[str, ...]:
    if found["kernel"].startswith("descriptor"):
        return ("cp.async.bulk.tensor",)
    return ("ld.global.v4",) if found["kernel"] in ("depthwise", "quantize") else ("cp.async.cg",)


def test_every_configuration_passes_the_gates(compiled: list[dict[str, Any]]) -> None:
    wrong = [f"{found['name']}: {', '.join(why)}" for found in compiled if (why := complaints(found))]
    assert not wrong, "\n".join(wrong)


def test_every_kernel_is_there_for_every_gpu(compiled: list[dict[str, Any]]) -> None:
    """The predicates that keep configurations out leave enough of them."""
    counted = Counter((found["kernel"], found["capability"]) for found in compiled)
    kernels = {
        "gemm", "int8_gemm", "weight_only", "weight_only_few", "block_sparse", "conv2d", "depthwise",
        "quantize",
    }  # fmt: skip
    descriptors = {"descriptor_gemm", "descriptor_int8_gemm"}
    expected = {(kernel, capability) for kernel in kernels for capability in (8, 9, 10)}
    expected |= {(kernel, capability) for kernel in descriptors for capability in (9, 10)}
    assert set(counted) == expected
    assert min(count for (kernel, _), count in counted.items() if kernel != "quantize") >= 4


def test_unpacking_weights_leaves_hopper_bound_by_memory(compiled: list[dict[str, Any]]) -> None:
    """Of few rows: no conversion of integers one by one, no detour through shared memory, and little else."""
    kernels = ("weight_only", "weight_only_few")
    checked, wrong = 0, []
    for found in compiled:
        if found["kernel"] in kernels and found["capability"] == 9 and (found["block_m"] or 0) <= FEW_ROWS:
            checked += 1
            each = sum(found["code"]["longest"].values()) / found["weights_per_thread"]
            if not 1 < each < INSTRUCTIONS_PER_WEIGHT:
                wrong.append(f"{found['name']}: {each:.1f} instructions per weight")
            slow = [name for name in found["code"]["longest"] if name.startswith(("I2F", "STS"))]
            wrong += [f"{found['name']}: {name} in its loop" for name in slow]
    assert checked >= 20
    assert not wrong, "\n".join(wrong)


def test_hopper_runs_the_large_tiles(compiled: list[dict[str, Any]]) -> None:
    """No configuration of the dense kernels is dead on the GPU that they are written for."""
    hopper = [found for found in compiled if found["capability"] == 9]
    descriptors = [found["name"] for found in hopper if found["kernel"] == "descriptor_gemm"]
    assert len(set(descriptors)) >= 7
    assert any("BLOCK_M=128 BLOCK_N=256" in name and "stages=4" in name for name in descriptors)
    assert any("BLOCK_M=128 BLOCK_N=128" in name and "PER_SM=2" in name for name in descriptors)
