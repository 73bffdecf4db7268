"""Convolutions of any window, as products with its pixels where they lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from leanmark_kernels import packing, reference
from leanmark_kernels.activations import Activation, activation_number
from leanmark_kernels.ops.arguments import (
    Pair,
    pairs_of,
    require_device,
    require_float32,
    require_shape,
    require_vector,
    require_windows,
)
from leanmark_kernels.ops.registration import empty_images, register, with_gradient


def direct_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_channels: int,
    kernel_size: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    activation: Activation = "none",
) -> Tensor:
    """``conv2d(input, w, bias, stride, padding) + residual`` and an activation in one pass; differentiable.

    ``input`` is float32 [N, C, H, W], fastest in ``torch.channels_last``; ``weight`` is what
    :func:`leanmark_kernels.packing.pack_direct` made of w [out_channels, C, *kernel_size]; ``bias`` is
    float32 [out_channels], ``residual`` float32 of the shape of the output. Returns float32
    [N, out_channels, H', W'] in channels_last, with the sizes of ``torch.nn.Conv2d``.

    For few input channels, for 1x1 with a stride, and for 1x1 with a residual or ReLU6: elsewhere libraries
    or other forms are as fast.

    Numerics: those of a direct float32 convolution. NaN and infinity pass through.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes, steps or devices that do
    not fit.
    """
    require_float32("direct_conv2d", input=input, weight=weight, bias=bias, residual=residual)
    windows = require_windows("direct_conv2d", input, kernel_size, stride, padding)
    expected = packing.linear_shape(out_channels, input.shape[1] * math.prod(kernel_size), torch.float32)
    if out_channels < 1 or weight.shape != expected:
        raise ValueError(
            f"direct_conv2d: weight is {list(weight.shape)}; it must be {list(expected)}, as pack_direct "
            f"makes it, since input is {list(input.shape)}, out_channels {out_channels} and kernel_size "
            f"{kernel_size}"
        )
    require_vector("direct_conv2d", out_channels, bias=bias)
    require_shape("direct_conv2d", (input.shape[0], out_channels, *windows), residual=residual)
    require_device("direct_conv2d", input, weight=weight, bias=bias, residual=residual)
    number = activation_number("direct_conv2d", activation)
    window = (*kernel_size, *stride, *padding)
    arguments = (input, weight, bias, residual, out_channels, window, number)
    output: Tensor = torch.ops.leanmark.direct_conv2d.default(*arguments)
    return with_gradient(reference.direct_conv2d, output, *arguments)


def _shape(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    window: Sequence[int],
    activation: int,
) -> Tensor:
    kernel_size, stride, padding = pairs_of(window)
    windows = require_windows("direct_conv2d", input, kernel_size, stride, padding)
    return empty_images(input, (input.shape[0], out_channels, *windows))


register(
    "direct_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int out_channels, "
    "int[] window, int activation) -> Tensor",
    reference.direct_conv2d,
    _shape,
)
