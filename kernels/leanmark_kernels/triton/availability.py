"""Whether Triton's kernels can run here, on which tensors, and why not."""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch

INTERPRETER = "TRITON_INTERPRET"
"""Environment variable of Triton; ``1`` makes its kernels run on CPU tensors, slowly and to the letter."""

OLDEST_CAPABILITY = (8, 0)


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on CPU tensors."""
    return os.environ.get(INTERPRETER) == "1"


def available() -> bool:
    """Whether the kernels of this package run here; otherwise its operators run their reference."""
    return why_unavailable() is None


@cache
def why_unavailable() -> str | None:
    """Why the kernels do not run here, or ``None`` where they do."""
    if find_spec("triton") is None:
        return "triton is not installed (pip install 'leanmark[triton]')"
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return f"there is no CUDA GPU that torch can use ({INTERPRETER}=1 runs the kernels on CPU tensors)"
    if torch.version.hip is not None:
        return "this torch is built for AMD GPUs, and the kernels are written for NVIDIA's"
    if torch.cuda.get_device_capability() < OLDEST_CAPABILITY:
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        return f"{name} has compute capability {capability}; the kernels need {OLDEST_CAPABILITY} or later"
    return None


@cache
def warn_slow_reference() -> None:
    """Say once that the operators run their reference, and why."""
    why = why_unavailable() or "the tensors are not on the GPU"
    warnings.warn(f"leanmark_kernels runs its slower reference in plain torch: {why}.", stacklevel=3)
