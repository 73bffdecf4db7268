"""Checks of weights that are packed; each names the function, the argument and what would be legal."""

from __future__ import annotations

import torch
from torch import Tensor


def require_dtype(function: str, *legal: torch.dtype, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{function}: {name} is a {type(tensor).__name__}; it must be a torch.Tensor")
        if tensor.dtype not in legal:
            one_of = "one of " if len(legal) > 1 else ""
            choices = ", ".join(str(dtype) for dtype in legal)
            raise TypeError(f"{function}: {name} is {tensor.dtype}; it must be {one_of}{choices}")


def require_finite(function: str, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise ValueError(f"{function}: {name} is on meta, so without values; all must be finite")
        finite = tensor.isfinite()
        if not bool(finite.all()):
            raise ValueError(
                f"{function}: {name} has {int((~finite).sum())} of {tensor.numel()} values that are NaN or "
                "infinite; all must be finite"
            )
