"""Depthwise weights in the layout that the native kernels read."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels.weights import require_dtype, require_finite


def pack_depthwise(weight: Tensor) -> Tensor:
    """The weights [C, 1, 3, 3] of a depthwise convolution as float32 [9, C], channels together.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape and for weights that are not
    finite.
    """
    require_dtype("pack_depthwise", torch.float32, weight=weight)
    if weight.dim() != 4 or weight.shape[1:] != (1, 3, 3) or weight.shape[0] == 0:
        raise ValueError(
            f"pack_depthwise: weight is {list(weight.shape)}; it must be [C, 1, 3, 3] with C at least 1"
        )
    require_finite("pack_depthwise", weight=weight)
    return weight.detach().flatten(1).t().contiguous()


def unpack_depthwise(packed: Tensor) -> Tensor:
    """The [C, 1, 3, 3] that :func:`pack_depthwise` packed."""
    return packed.t().reshape(-1, 1, 3, 3)
