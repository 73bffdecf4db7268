"""3x3 convolutions of stride 1 by Winograd's minimal filtering."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import packing, reference
from leanmark_kernels.ops.arguments import require_device, require_float32, require_vector, require_whole
from leanmark_kernels.ops.registration import register, with_gradient


def winograd_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_channels: int,
    padding: int = 1,
    relu: bool = False,
) -> Tensor:
    """``conv2d(input, w, bias, padding=padding) + residual``, then ReLU if asked for; differentiable.

    ``input`` is float32 [N, C, H, W], fastest in ``torch.channels_last``; ``weight`` is what
    :func:`leanmark_kernels.packing.pack_winograd` made of w [out_channels, C, 3, 3], and decides between
    F(2x2, 3x3) and F(4x4, 3x3); ``bias`` is float32 [out_channels], ``residual`` float32 of the shape of the
    output. Returns float32 [N, out_channels, H + 2 padding - 2, W + 2 padding - 2] in channels_last.

    Numerics (Lavin and Gray, CVPR 2016): the largest error, relative to the largest output, is about that of
    a direct convolution for F(2x2, 3x3), 1e-6 or less, and up to 2e-5 for F(4x4, 3x3), whose transforms
    multiply by up to 8. An infinity or NaN in the input becomes NaN in every output of the tiles it touches,
    not only in those within its 3x3 window.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes, padding or devices that do
    not fit.
    """
    require_float32("winograd_conv2d", input=input, weight=weight, bias=bias, residual=residual)
    _check_shape(input, weight, out_channels, padding)
    require_vector("winograd_conv2d", out_channels, bias=bias)
    if residual is not None and residual.shape != (shape := _output_shape(input, out_channels, padding)):
        raise ValueError(
            f"winograd_conv2d: residual is {list(residual.shape)}; it must be {list(shape)}, as the output, "
            "or None"
        )
    require_device("winograd_conv2d", input, weight=weight, bias=bias, residual=residual)
    arguments = (input, weight, bias, residual, out_channels, padding, relu)
    output: Tensor = torch.ops.leanmark.winograd_conv2d.default(*arguments)
    return with_gradient(reference.winograd_conv2d, output, *arguments)


def _check_shape(input: Tensor, weight: Tensor, out_channels: int, padding: int) -> None:
    if weight.dim() != 4 or weight.shape[0] not in (16, 36) or weight.shape[3] != packing.PANEL_WIDTH:
        raise ValueError(
            f"winograd_conv2d: weight is {list(weight.shape)}; it must be [16 or 36, panels, C, "
            f"{packing.PANEL_WIDTH}], as pack_winograd makes it"
        )
    _, panels, channels, width = weight.shape
    if input.dim() != 4 or input.shape[1] != channels:
        raise ValueError(
            f"winograd_conv2d: input is {list(input.shape)}; it must be [N, {channels}, H, W], "
            f"since weight was packed for {channels} channels"
        )
    if not (panels - 1) * width < out_channels <= panels * width:
        raise ValueError(
            f"winograd_conv2d: out_channels is {out_channels}; it must be from {(panels - 1) * width + 1} to "
            f"{panels * width}, since weight has {panels} panels of {width}"
        )
    require_whole("winograd_conv2d", 0, padding=padding)
    if min(input.shape[2:]) + 2 * padding < 3:
        raise ValueError(
            f"winograd_conv2d: input is {list(input.shape)}; with padding {padding} its height and width "
            f"must be at least {3 - 2 * padding}"
        )


def _output_shape(input: Tensor, out_channels: int, padding: int) -> tuple[int, ...]:
    batch, _, height, width = input.shape
    return (batch, out_channels, height + 2 * padding - 2, width + 2 * padding - 2)


def _shape(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    padding: int,
    relu: bool,
) -> Tensor:
    return torch.empty(
        _output_shape(input, out_channels, padding),
        dtype=input.dtype,
        device=input.device,
        memory_format=torch.channels_last,
    )


register(
    "winograd_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int out_channels, "
    "int padding, bool relu) -> Tensor",
    reference.winograd_conv2d,
    _shape,
)
