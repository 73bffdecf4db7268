"""Checks that several operators share; each names the argument and what would be legal."""

from __future__ import annotations

import torch
from torch import Tensor


def require_float32(operator: str, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{operator}: {name} is a {type(tensor).__name__}; it must be a torch.Tensor")
        if tensor is not None and tensor.dtype is not torch.float32:
            raise TypeError(f"{operator}: {name} is {tensor.dtype}; it must be torch.float32")


def require_device(operator: str, input: Tensor, **others: Tensor | None) -> None:
    for name, tensor in others.items():
        if tensor is not None and tensor.device != input.device:
            raise ValueError(
                f"{operator}: {name} is on {tensor.device}; it must be on {input.device}, where input is"
            )


def require_vector(operator: str, length: int, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != (length,):
            raise ValueError(f"{operator}: {name} is {list(tensor.shape)}; it must be [{length}] or None")
