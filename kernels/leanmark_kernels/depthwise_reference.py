"""What the depthwise operators mean, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.depthwise_packing import unpack_depthwise
from leanmark_kernels.packing import unpack_linear
from leanmark_kernels.reference import activated


def depthwise_conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, activation: int
) -> Tensor:
    """A 3x3 convolution of every channel by itself, then the activation of that number.

    ``input`` is [N, C, H, W], ``weight`` [9, C]. Returns [N, C, H', W'] in channels_last.
    """
    filters = unpack_depthwise(weight)
    output = F.conv2d(input, filters, bias, stride, padding, groups=input.shape[1])
    return activated(output, activation).contiguous(memory_format=torch.channels_last)


def inverted_residual(
    input: Tensor,
    expand: Tensor | None,
    expand_bias: Tensor | None,
    depthwise: Tensor,
    depthwise_bias: Tensor | None,
    project: Tensor,
    project_bias: Tensor | None,
    out_channels: int,
    stride: int,
    residual: bool,
) -> Tensor:
    """1x1 expansion and ReLU6, depthwise 3x3 and ReLU6, 1x1 projection, plus ``input`` if ``residual``.

    The first only with ``expand``. ``input`` is [N, C, H, W], ``depthwise`` [9, hidden], the two others as
    :func:`leanmark_kernels.packing.pack_linear` makes them. Returns [N, out_channels, H', W'] in
    channels_last.
    """
    hidden = depthwise.shape[1]
    narrow = unpack_linear(project, out_channels, hidden)[..., None, None]
    expanded = input
    if expand is not None:
        wide = unpack_linear(expand, hidden, input.shape[1])[..., None, None]
        expanded = F.relu6(F.conv2d(input, wide, expand_bias))
    filters = unpack_depthwise(depthwise)
    filtered = F.relu6(F.conv2d(expanded, filters, depthwise_bias, stride, 1, groups=hidden))
    output = F.conv2d(filtered, narrow, project_bias)
    if residual:
        output = output + input
    return output.contiguous(memory_format=torch.channels_last)
