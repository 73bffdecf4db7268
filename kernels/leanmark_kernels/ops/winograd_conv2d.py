"""Convolutions by Winograd's minimal filtering: 3x3, and 7x7 of stride 2."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import packing, reference
from leanmark_kernels.ops.arguments import (
    require_device,
    require_float32,
    require_shape,
    require_vector,
    require_whole,
)
from leanmark_kernels.ops.registration import empty_images, register, with_gradient
from leanmark_kernels.winograd_forms import AS_STORED, Form, form_of


def winograd_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_channels: int,
    padding: int = 1,
    stride: int = 1,
    relu: bool = False,
) -> Tensor:
    """``conv2d(input, w, bias, stride, padding) + residual``, then ReLU if asked for; differentiable.

    ``input`` is float32 [N, C, H, W], fastest in ``torch.channels_last``; ``weight`` is what
    :func:`leanmark_kernels.packing.pack_winograd` made of w for the same ``stride``: it decides on the form,
    F(2x2, 3x3) or F(4x4, 3x3) at stride 1, 3x3 or 7x7 at stride 2, and on whether weights are transformed
    ahead or, as they are stored, here. ``bias`` is float32 [out_channels], ``residual`` float32 of the shape
    of the output. Returns float32 [N, out_channels, H', W'] in channels_last.

    Numerics (Lavin and Gray, CVPR 2016): the largest error, relative to the largest output, is about that of
    a direct convolution for F(2x2, 3x3) and for 3x3 at stride 2, 1e-6 or less, and up to 2e-5 for
    F(4x4, 3x3) and 7x7, whose transforms multiply by up to 8, wherever weights are transformed. An infinity
    or NaN in the input becomes NaN in every output of the tiles it touches, not only in those within its
    window.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes, padding, stride or devices
    that do not fit.
    """
    require_float32("winograd_conv2d", input=input, weight=weight, bias=bias, residual=residual)
    form = _checked_form(input, weight, stride)
    _check_shape(input, weight, out_channels, padding, form)
    require_vector("winograd_conv2d", out_channels, bias=bias)
    require_shape("winograd_conv2d", _output_shape(input, out_channels, padding, form), residual=residual)
    require_device("winograd_conv2d", input, weight=weight, bias=bias, residual=residual)
    arguments = (input, weight, bias, residual, out_channels, padding, stride, relu)
    output: Tensor = torch.ops.leanmark.winograd_conv2d.default(*arguments)
    return with_gradient(reference.winograd_conv2d, output, *arguments)


def _checked_form(input: Tensor, weight: Tensor, stride: int) -> Form:
    if stride not in (1, 2):
        raise ValueError(f"winograd_conv2d: stride is {stride}; it must be 1 or 2")
    form = form_of(weight.shape, stride)
    if form is None or weight.shape[-1] != packing.PANEL_WIDTH:
        raise ValueError(
            f"winograd_conv2d: weight is {list(weight.shape)}; it must be [16 or 36, panels, C, "
            f"{packing.PANEL_WIDTH}] or, with stride 1, [panels, C, 3, 3, {packing.PANEL_WIDTH}], as "
            "pack_winograd makes it"
        )
    channels = weight.shape[_panels_at(weight) + 1] // form.pixels
    if input.dim() != 4 or input.shape[1] != channels:
        raise ValueError(
            f"winograd_conv2d: input is {list(input.shape)}; it must be [N, {channels}, H, W], "
            f"since weight was packed for {channels} channels and stride {stride}"
        )
    return form


def _check_shape(input: Tensor, weight: Tensor, out_channels: int, padding: int, form: Form) -> None:
    panels, width = weight.shape[_panels_at(weight)], packing.PANEL_WIDTH
    if not (panels - 1) * width < out_channels <= panels * width:
        raise ValueError(
            f"winograd_conv2d: out_channels is {out_channels}; it must be from {(panels - 1) * width + 1} to "
            f"{panels * width}, since weight has {panels} panels of {width}"
        )
    require_whole("winograd_conv2d", 0, padding=padding)
    if min(input.shape[2:]) + 2 * padding < form.kernel:
        raise ValueError(
            f"winograd_conv2d: input is {list(input.shape)}; with padding {padding} its height and width "
            f"must be at least {form.kernel - 2 * padding}"
        )


def _panels_at(weight: Tensor) -> int:
    return 0 if weight.dim() == AS_STORED else 1


def _output_shape(input: Tensor, out_channels: int, padding: int, form: Form) -> tuple[int, ...]:
    height, width = (form.size(size, padding) for size in input.shape[2:])
    return (input.shape[0], out_channels, height, width)


def _shape(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    padding: int,
    stride: int,
    relu: bool,
) -> Tensor:
    form = form_of(weight.shape, stride)
    assert form is not None
    return empty_images(input, _output_shape(input, out_channels, padding, form))


register(
    "winograd_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int out_channels, "
    "int padding, int stride, bool relu) -> Tensor",
    reference.winograd_conv2d,
    _shape,
)
