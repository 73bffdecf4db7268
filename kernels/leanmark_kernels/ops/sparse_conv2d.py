"""Convolutions with sparse weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from leanmark_kernels import sparse_reference
from leanmark_kernels.ops.arguments import (
    Pair,
    pairs_of,
    require_device,
    require_float32,
    require_parts,
    require_shape,
    require_vector,
    require_windows,
)
from leanmark_kernels.ops.registration import register, with_gradient
from leanmark_kernels.ops.sparse_arguments import require_packed
from leanmark_kernels.sparse_packing import MOST_TAPS, SparseWeight


def sparse_conv2d(
    input: Tensor,
    weight: SparseWeight,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_channels: int,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    relu: bool = False,
) -> Tensor:
    """``conv2d(input, w, bias) + residual``, then ReLU if asked for, without the zeros of w; differentiable.

    ``input`` is float32 [N, C, H, W], fastest row-major; ``weight`` is what
    :func:`leanmark_kernels.sparse_packing.pack_sparse` made of w [out_channels, C, *kernel_size], or of a
    grouped one, whose other groups count as zeros; ``bias`` is float32 [out_channels], ``residual`` float32
    of the shape of the output. Returns float32 [N, out_channels, H', W'], row-major, with the sizes of
    ``torch.nn.Conv2d``.

    Numerics: those of a direct float32 convolution. A NaN or infinity in ``input`` that meets zeros of w only
    does not reach the output.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes, steps or devices that do
    not fit.
    """
    require_parts("sparse_conv2d", SparseWeight, "weight", weight)
    values, indices, starts = weight
    require_float32("sparse_conv2d", input=input, values=values, bias=bias, residual=residual)
    shape = _output_shape(input, out_channels, kernel_size, stride, padding, dilation)
    require_packed("sparse_conv2d", weight, out_channels, input.shape[1], math.prod(kernel_size))
    require_vector("sparse_conv2d", out_channels, bias=bias)
    require_shape("sparse_conv2d", shape, residual=residual)
    require_device(
        "sparse_conv2d", input, values=values, indices=indices, starts=starts, bias=bias, residual=residual
    )
    window = (*kernel_size, *stride, *padding, *dilation)
    arguments = (input, *weight, bias, residual, out_channels, window, relu)
    output: Tensor = torch.ops.leanmark.sparse_conv2d.default(*arguments)
    return with_gradient(sparse_reference.sparse_conv2d, output, *arguments)


def _output_shape(
    input: Tensor, out_channels: int, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[int, ...]:
    if input.dim() != 4 or input.shape[1] < 1:
        raise ValueError(
            f"sparse_conv2d: input is {list(input.shape)}; it must be [N, C, H, W], C at least 1"
        )
    windows = require_windows("sparse_conv2d", input, kernel_size, stride, padding, dilation, MOST_TAPS)
    return (input.shape[0], out_channels, *windows)


def _shape(
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
    return input.new_empty(_output_shape(input, out_channels, *pairs_of(window)))


register(
    "sparse_conv2d(Tensor input, Tensor values, Tensor indices, Tensor starts, Tensor? bias, "
    "Tensor? residual, int out_channels, int[] window, bool relu) -> Tensor",
    sparse_reference.sparse_conv2d,
    _shape,
)
