"""What the sparse operators mean, in plain torch: their weights made dense again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.sparse_packing import SparseWeight, unpack_sparse


def sparse_linear(
    input: Tensor,
    values: Tensor,
    indices: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    relu: bool,
    few_rows: Tensor | None = None,
) -> Tensor:
    """``input @ w.T + bias + residual``, then ReLU if ``relu``; ``input`` is [*, K].

    ``few_rows`` holds the same weight once more, and is not needed here.
    """
    dense = unpack_sparse(SparseWeight(values, indices, starts), out_features, input.shape[-1], 1)[..., 0]
    return _finish(F.linear(input, dense, bias), residual, relu)


def sparse_conv2d(
    input: Tensor,
    values: Tensor,
    indices: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    window: Sequence[int],
    relu: bool,
) -> Tensor:
    """``conv2d(input, w, bias) + residual``, then ReLU if ``relu``; ``input`` is [N, C, H, W].

    ``window`` is kernel_size, stride, padding and dilation, each for height and width. Returns
    [N, out_channels, H', W'], row-major.
    """
    kernel_size, stride, padding, dilation = window[:2], window[2:4], window[4:6], window[6:]
    weight = SparseWeight(values, indices, starts)
    dense = unpack_sparse(weight, out_channels, input.shape[1], math.prod(kernel_size))
    filters = dense.unflatten(2, tuple(kernel_size))
    output = F.conv2d(input, filters, bias, tuple(stride), tuple(padding), tuple(dilation))
    return _finish(output, residual, relu).contiguous()


def _finish(output: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    if residual is not None:
        output = output + residual
    return torch.relu(output) if relu else output
