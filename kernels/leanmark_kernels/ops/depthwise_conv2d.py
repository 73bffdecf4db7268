"""3x3 convolutions of every channel by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import depthwise_reference
from leanmark_kernels.activations import Activation, activation_number
from leanmark_kernels.ops.arguments import (
    require_3x3,
    require_device,
    require_float32,
    require_vector,
    shape_3x3,
)
from leanmark_kernels.ops.registration import empty_images, register, with_gradient


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 1,
    activation: Activation = "none",
) -> Tensor:
    """``conv2d(input, w, bias, stride, padding, groups=C)`` and an activation in one pass; differentiable.

    ``input`` is float32 [N, C, H, W], fastest in ``torch.channels_last``; ``weight`` is what
    :func:`leanmark_kernels.depthwise_packing.pack_depthwise` made of w [C, 1, 3, 3]; ``bias`` is float32 [C]
    or ``None``; ``stride`` is 1 or 2. Returns float32 [N, C, H', W'] in channels_last, with the sizes of
    ``torch.nn.Conv2d``.

    Numerics: those of a direct float32 convolution. NaN passes through; outside of the image nothing is read,
    so that a NaN or infinity reaches only the outputs whose window holds it.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes, steps or devices that do
    not fit.
    """
    require_float32("depthwise_conv2d", input=input, weight=weight, bias=bias)
    if weight.dim() != 2 or weight.shape[0] != 9:
        raise ValueError(
            f"depthwise_conv2d: weight is {list(weight.shape)}; it must be [9, C], as pack_depthwise makes it"
        )
    if input.dim() != 4 or input.shape[1] != weight.shape[1]:
        raise ValueError(
            f"depthwise_conv2d: input is {list(input.shape)}; it must be [N, {weight.shape[1]}, H, W], "
            f"since weight has {weight.shape[1]} channels"
        )
    if stride not in (1, 2):
        raise ValueError(f"depthwise_conv2d: stride is {stride}; it must be 1 or 2")
    require_3x3("depthwise_conv2d", input, padding)
    require_vector("depthwise_conv2d", weight.shape[1], bias=bias)
    require_device("depthwise_conv2d", input, weight=weight, bias=bias)
    number = activation_number("depthwise_conv2d", activation)
    arguments = (input, weight, bias, stride, padding, number)
    output: Tensor = torch.ops.leanmark.depthwise_conv2d.default(*arguments)
    return with_gradient(depthwise_reference.depthwise_conv2d, output, *arguments)


def _shape(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, activation: int
) -> Tensor:
    return empty_images(input, shape_3x3(input, input.shape[1], padding, stride))


register(
    "depthwise_conv2d(Tensor input, Tensor weight, Tensor? bias, int stride, int padding, int activation) "
    "-> Tensor",
    depthwise_reference.depthwise_conv2d,
    _shape,
)
