"""Expansion, depthwise convolution and projection in one operator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from leanmark_kernels import depthwise_reference, packing
from leanmark_kernels.ops.arguments import (
    require_device,
    require_float32,
    require_parts,
    require_vector,
    shape_3x3,
)
from leanmark_kernels.ops.registration import empty_images, register, with_gradient


class InvertedResidualWeights(NamedTuple):
    """The three convolutions of a block, packed."""

    expand: Tensor | None
    """of w [hidden, C], as :func:`leanmark_kernels.packing.pack_linear` makes it; or hidden is C"""
    expand_bias: Tensor | None
    """[hidden], only with ``expand``"""
    depthwise: Tensor
    """[9, hidden], as :func:`leanmark_kernels.depthwise_packing.pack_depthwise` makes it"""
    depthwise_bias: Tensor | None
    """[hidden]"""
    project: Tensor
    """of w [out_channels, hidden], as ``pack_linear`` makes it"""
    project_bias: Tensor | None
    """[out_channels]"""


def inverted_residual(
    input: Tensor,
    weights: InvertedResidualWeights,
    *,
    out_channels: int,
    stride: int = 1,
    residual: bool = False,
) -> Tensor:
    """1x1 expansion and ReLU6, depthwise 3x3 and ReLU6, 1x1 projection, plus ``input`` if ``residual``.

    The block of MobileNetV2 (Sandler et al., CVPR 2018) with its batch norms folded, a few rows at a time, so
    that the expanded image never goes through memory; differentiable. Without ``weights.expand``, as in that
    network's first block, the 3x3 convolution reads ``input`` itself. ``input`` is float32 [N, C, H, W],
    fastest in ``torch.channels_last``; all ``weights`` are float32; the 3x3 convolution has padding 1 and
    ``stride`` 1 or 2. Returns float32 [N, out_channels, ceil(H / stride), ceil(W / stride)] in channels_last.

    Numerics: those of three direct float32 convolutions. ``residual`` needs stride 1 and C = out_channels.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes, steps or devices that do
    not fit.
    """
    require_parts("inverted_residual", InvertedResidualWeights, "weights", weights)
    weights = InvertedResidualWeights(*weights)
    named = weights._asdict()
    require_float32("inverted_residual", input=input, **named)
    _check_shape(input, weights, out_channels, stride, residual)
    hidden = weights.depthwise.shape[1]
    require_vector(
        "inverted_residual", hidden, expand_bias=weights.expand_bias, depthwise_bias=weights.depthwise_bias
    )
    require_vector("inverted_residual", out_channels, project_bias=weights.project_bias)
    require_device("inverted_residual", input, **named)
    arguments = (input, *weights, out_channels, stride, residual)
    output: Tensor = torch.ops.leanmark.inverted_residual.default(*arguments)
    return with_gradient(depthwise_reference.inverted_residual, output, *arguments)


def _check_shape(
    input: Tensor, weights: InvertedResidualWeights, out_channels: int, stride: int, residual: bool
) -> None:
    if input.dim() != 4 or 0 in input.shape[1:]:
        raise ValueError(
            f"inverted_residual: input is {list(input.shape)}; it must be [N, C, H, W], none of C, H, W 0"
        )
    depthwise = weights.depthwise
    if depthwise.dim() != 2 or depthwise.shape[0] != 9 or depthwise.shape[1] == 0:
        raise ValueError(
            f"inverted_residual: depthwise is {list(depthwise.shape)}; it must be [9, hidden], as "
            "pack_depthwise makes it"
        )
    if out_channels < 1:
        raise ValueError(f"inverted_residual: out_channels is {out_channels}; it must be at least 1")
    hidden, channels = depthwise.shape[1], input.shape[1]
    for name, weight, shape in (
        ("expand", weights.expand, packing.linear_shape(hidden, channels, torch.float32)),
        ("project", weights.project, packing.linear_shape(out_channels, hidden, torch.float32)),
    ):
        if weight is not None and weight.shape != shape:
            raise ValueError(
                f"inverted_residual: {name} is {list(weight.shape)}; it must be {list(shape)}, as "
                f"pack_linear makes it, for C {channels}, hidden {hidden} and out_channels {out_channels}"
            )
    if weights.expand is None and (hidden != channels or weights.expand_bias is not None):
        raise ValueError(
            f"inverted_residual: expand is None; hidden is {hidden} and must then be C {channels}, and "
            "expand_bias None"
        )
    if stride not in (1, 2):
        raise ValueError(f"inverted_residual: stride is {stride}; it must be 1 or 2")
    if residual and (stride != 1 or channels != out_channels):
        raise ValueError(
            f"inverted_residual: residual is True; it must be False, since stride is {stride}, "
            f"C {channels} and out_channels {out_channels}; it needs stride 1 and as many outputs as inputs"
        )


def _shape(
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
    return empty_images(input, shape_3x3(input, out_channels, 1, stride))


register(
    "inverted_residual(Tensor input, Tensor? expand, Tensor? expand_bias, Tensor depthwise, "
    "Tensor? depthwise_bias, Tensor project, Tensor? project_bias, int out_channels, int stride, "
    "bool residual) -> Tensor",
    depthwise_reference.inverted_residual,
    _shape,
)
