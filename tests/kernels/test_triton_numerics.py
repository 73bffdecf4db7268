"""The Triton kernels in Triton's interpreter, in a process of their own: the switch is read on import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]

FOLDER = Path(__file__).parent
TIMEOUT_S = 1200
KERNELS = {
    "descriptor_gemm",
    "gemm",
    "descriptor_int8_gemm",
    "int8_gemm",
    "weight_only",
    "weight_only_few",
    "block_sparse",
    "conv2d",
    "depthwise",
}


def interpreted(program: str) -> list[str]:
    """The lines that ``program``, beside this file, prints with Triton's interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / program)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout.splitlines()


@pytest.fixture(scope="module")
def solved() -> list[dict[str, Any]]:
    return [json.loads(line) for line in interpreted("triton_numerics.py")]


def test_every_configuration_is_right(solved: list[dict[str, Any]]) -> None:
    """The bound is stated in triton_numerics.py; NaN, as in memory that nobody wrote, is beyond it."""
    wrong = [
        f"{found['name']}: {found['share']:.3g} x the bound" for found in solved if not found["share"] < 1
    ]
    assert not wrong, "\n".join(wrong)


def test_every_kernel_was_run_in_both_dtypes(solved: list[dict[str, Any]]) -> None:
    ran = {(found["kernel"], found["name"].split(":")[0].split()[-1]) for found in solved}
    assert {kernel for kernel, dtype in ran if dtype == "float16"} == KERNELS
    # float32 products do not run on tensor cores, so descriptors are for int8 alone
    assert {kernel for kernel, dtype in ran if dtype == "float32"} == KERNELS - {"descriptor_gemm"}


def test_public_operators_launch_the_kernels() -> None:
    """From the Python function through torch's dispatcher, with leading dimensions, strides and opcheck."""
    assert interpreted("triton_operators.py")[-1] == "all right"
