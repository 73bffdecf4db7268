"""What a conversion has to know of the device that a model is on: a processor, or an NVIDIA GPU.

On a GPU, forms are timed by its own clock, the host aside: a step of many short kernels wants to be replayed
as a CUDA graph. What is only for GPUs is imported where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from leanmark_kernels.convert import choices, rows
from leanmark_kernels.convert.candidates import Candidate
from leanmark_kernels.convert.rows import WEIGHTS

_ROUNDING = {torch.float32: 2e-3, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Of a layer on a GPU, where torch may compute float32 convolutions in TF32, with the mantissa of float16."""


def is_gpu(device: torch.device) -> bool:
    """Whether forms for GPUs are wanted, as they are for CPU tensors in Triton's interpreter."""
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def why_not(device: torch.device, weights: str) -> str | None:
    """Why nothing can be converted on ``device`` to ``weights``, or ``None`` where it can."""
    kind = "cuda" if is_gpu(device) else device.type
    if kind not in ("cpu", "cuda"):
        return f"{device} is neither a processor nor an NVIDIA GPU"
    if kind not in WEIGHTS[weights].devices:
        legal = ", ".join(name for name, each in WEIGHTS.items() if kind in each.devices)
        return f"weights {weights!r} have no operator on {kind}; it must be one of {legal}"
    if kind == "cuda":
        from leanmark_kernels import triton

        return triton.why_unavailable()
    return None


def all_rows(device: torch.device) -> tuple[Candidate, ...]:
    if not is_gpu(device):
        return rows.ROWS
    from leanmark_kernels.convert import gpu_rows

    return gpu_rows.ROWS


def machine(device: torch.device) -> Mapping[str, str | int]:
    """What timings on ``device`` depend on besides the work itself."""
    if device.type != "cuda":
        return choices.machine()
    from leanmark_kernels.convert import gpu_timing

    with torch.cuda.device(device):
        return gpu_timing.machine()


def dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """In which the weights of a model may be."""
    return tuple(_ROUNDING) if is_gpu(device) else (torch.float32,)


def rounding(weight: Tensor) -> float:
    """The largest error, relative to the largest output, that the dtype of a layer's ``weight`` may make."""
    return _ROUNDING.get(weight.dtype, 0.0) if is_gpu(weight.device) else WEIGHTS["fp32"].error
