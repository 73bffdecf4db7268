"""Checks that the operators of this package share; each names the argument and what would be legal."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels.ops.arguments import require_device, require_vector, require_whole
from leanmark_kernels.triton import availability

__all__ = [
    "ACTIVATIONS",
    "FLOATING",
    "require_activation",
    "require_device",
    "require_dtype",
    "require_floating",
    "require_shape",
    "require_vector",
    "require_whole",
]

ACTIVATIONS = ("none", "relu", "relu6", "gelu", "silu")
FLOATING = (torch.float16, torch.bfloat16, torch.float32)


def require_activation(operator: str, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{operator}: activation is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}"
        )


def require_dtype(operator: str, *legal: torch.dtype, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in legal:
            choices = " or ".join(str(dtype) for dtype in legal)
            raise TypeError(f"{operator}: {name} is {tensor.dtype}; it must be {choices}")


def require_floating(operator: str, input: Tensor, **others: Tensor | None) -> None:
    """``input`` of a floating dtype that the kernels multiply, ``others`` of the same."""
    require_dtype(operator, *FLOATING, input=input)
    if input.dtype == torch.bfloat16 and input.device.type == "cpu" and availability.interpreted():
        raise TypeError(
            f"{operator}: input is torch.bfloat16, whose products Triton's interpreter gets wrong "
            "(triton issue 11584); use torch.float16 or torch.float32 there"
        )
    for name, tensor in others.items():
        if tensor is not None and tensor.dtype != input.dtype:
            raise TypeError(f"{operator}: {name} is {tensor.dtype}; it must be {input.dtype}, as input")


def require_shape(operator: str, name: str, tensor: Tensor | None, *shape: int) -> None:
    if tensor is not None and tensor.shape != shape:
        raise ValueError(f"{operator}: {name} is {list(tensor.shape)}; it must be {list(shape)}")
