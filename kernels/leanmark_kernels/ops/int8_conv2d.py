"""Exact convolutions of 8-bit integers: 3x3 of stride 1 by Winograd, all others as products of patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leanmark_kernels import integer_reference
from leanmark_kernels.integer_packing import (
    MOST_CHANNELS,
    MOST_DEPTH,
    PackedInt8,
    Quantized,
    int8_linear_shape,
)
from leanmark_kernels.ops.arguments import (
    pairs_of,
    require_3x3,
    require_device,
    require_float32,
    require_pairs,
    require_parts,
    require_shape,
    require_vector,
    shape_3x3,
)
from leanmark_kernels.ops.int8_linear import require_input_scale, require_integers
from leanmark_kernels.ops.registration import empty_images, for_inference, register
from leanmark_kernels.packing import PANEL_WIDTH


class Geometry(NamedTuple):
    """Of a convolution, for height and width."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def window(self) -> tuple[int, ...]:
        """As the operators take it."""
        return (*self.kernel_size, *self.stride, *self.padding, *self.dilation)


def int8_winograd_conv2d(
    input: Quantized | Tensor,
    weight: PackedInt8,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_channels: int,
    padding: int = 1,
    relu: bool = False,
) -> Tensor:
    """``conv2d(values - zero_point, w) * (input scale * weight scale) + bias + residual``, then ReLU.

    A 3x3 convolution of stride 1. ``input`` holds int8 or uint8 [N, C, H, W] with C up to 1820, fastest in
    ``torch.channels_last``, and a scale for all or for each image; the padding stands for the number 0. Or it
    is a float32 tensor of that shape, whose images are rounded on the way as :func:`quantize_int8` does rows.
    ``weight`` holds what :func:`leanmark_kernels.integer_packing.pack_int8_winograd` made of w int8
    [out_channels, C, 3, 3], and its scale; ``bias`` is float32 [out_channels] and ``residual`` float32
    of the shape of the output, or ``None``. Returns float32
    [N, out_channels, H + 2 padding - 2, W + 2 padding - 2] in channels_last.

    Numerics: the convolution is exact whatever the values are. F(4x4, 3x3) of Winograd (Lavin and Gray, CVPR
    2016) at the points 0, 1, -1, 2, -1/2 and infinity needs integers only, which fit 16 bits before the
    product; 900 times each output is then known modulo 2^32, and so is the output. What follows is rounded
    to float32 step by step, as in :func:`int8_linear`.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes, padding, zero points or devices that do
    not fit, ``RuntimeError`` for a scale of ``weight`` that is not finite. The backward pass
    raises ``NotImplementedError``.
    """
    name = "int8_winograd_conv2d"
    values, input_scale, zero_point = _images(name, input)
    require_parts(name, PackedInt8, "weight", weight)
    packed, scale = weight
    require_float32(name, scale=scale, bias=bias, residual=residual)
    _check(values, packed, out_channels, padding)
    require_vector(name, out_channels, scale=scale, bias=bias)
    require_shape(name, shape_3x3(values, out_channels, padding), residual=residual)
    require_device(
        name, values, weight=packed, scale=scale, input_scale=input_scale, bias=bias, residual=residual
    )
    output: Tensor = torch.ops.leanmark.int8_winograd_conv2d.default(
        values, packed, scale, input_scale, zero_point, bias, residual, out_channels, padding, relu
    )
    return for_inference(name, output)


def int8_conv2d(
    input: Quantized | Tensor,
    weight: PackedInt8,
    bias: Tensor | None = None,
    *,
    geometry: Geometry,
    relu: bool = False,
) -> Tensor:
    """``conv2d(values - zero_point, w) * (input scale * weight scale) + bias``, then ReLU; any convolution.

    Patches are copied and multiplied, with the numerics of :func:`int8_linear`. ``input`` and ``bias`` are as
    in :func:`int8_winograd_conv2d`; ``weight`` holds, one after the other for all groups of channels, what
    :func:`leanmark_kernels.integer_packing.pack_int8_linear` made of the group's int8
    [O / groups, kh * kw * (C / groups)], channels innermost, which are at most 65536. Returns float32
    [N, O, H', W'] in channels_last.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes, geometries, zero points or devices that
    do not fit, ``RuntimeError`` for a scale of ``weight`` that is not finite. The backward pass
    raises ``NotImplementedError``.
    """
    name = "int8_conv2d"
    values, input_scale, zero_point = _images(name, input)
    require_parts(name, PackedInt8, "weight", weight)
    packed, scale = weight
    require_float32(name, scale=scale, bias=bias)
    _check_groups(values, packed, scale, geometry)
    require_vector(name, scale.shape[0], bias=bias)
    require_device(name, values, weight=packed, scale=scale, input_scale=input_scale, bias=bias)
    output: Tensor = torch.ops.leanmark.int8_conv2d.default(
        values, packed, scale, input_scale, zero_point, bias, geometry.window(), relu
    )
    return for_inference(name, output)


def _images(operator: str, input: Quantized | Tensor) -> tuple[Tensor, Tensor | None, int]:
    """The values, the scale and the zero point that the operator is to be called with."""
    if isinstance(input, Tensor):
        require_float32(operator, input=input)
        return input, None, 0
    require_parts(operator, Quantized, "input", input)
    values, scale, zero_point = input
    require_integers(operator, values, zero_point)
    require_float32(operator, input_scale=scale)
    require_input_scale(operator, scale, values.shape[:1].numel(), "N")
    return values, scale, zero_point


def _check_groups(input: Tensor, weight: Tensor, scale: Tensor, geometry: Geometry) -> None:
    name, shape = "int8_conv2d", list(input.shape)
    if scale.dim() != 1:
        raise ValueError(f"{name}: scale is {list(scale.shape)}; it must be [outputs]")
    groups, outputs = weight.shape[0] if weight.dim() == 3 else 0, scale.shape[0]
    if len(shape) != 4 or groups == 0 or shape[1] % groups or outputs % groups:
        raise ValueError(
            f"{name}: input is {shape} with {groups} groups and {outputs} outputs; it must be "
            "[N, C, H, W], and the groups must divide C and the outputs"
        )
    _check_geometry(shape, geometry)
    if weight.dtype != torch.int8:
        raise TypeError(f"{name}: weight is {weight.dtype}; it must be torch.int8")
    depth = shape[1] // groups * geometry.kernel_size[0] * geometry.kernel_size[1]
    expected = (groups, *int8_linear_shape(outputs // groups, depth))
    if depth > MOST_DEPTH or weight.shape != expected:
        raise ValueError(
            f"{name}: weight is {list(weight.shape)}; it must be {list(expected)}, as pack_int8_linear makes "
            f"it, of at most {MOST_DEPTH} values for each output, since input is {shape}, outputs are "
            f"{outputs} and kernel_size is {list(geometry.kernel_size)}"
        )


def _check_geometry(shape: list[int], geometry: Geometry) -> None:
    steps = geometry._asdict()
    require_pairs("int8_conv2d", 0, padding=steps.pop("padding"))
    require_pairs("int8_conv2d", 1, **steps)
    for axis, side in ((0, "high"), (1, "wide")):
        reach = geometry.dilation[axis] * (geometry.kernel_size[axis] - 1) + 1
        if shape[2 + axis] + 2 * geometry.padding[axis] < reach:
            raise ValueError(
                f"int8_conv2d: input is {shape}; with its padding it must be at least {reach} {side}"
            )


def _check(input: Tensor, weight: Tensor, out_channels: int, padding: int) -> None:
    if weight.dtype != torch.int8:
        raise TypeError(f"int8_winograd_conv2d: weight is {weight.dtype}; it must be torch.int8")
    if input.dim() != 4 or not 0 < input.shape[1] <= MOST_CHANNELS:
        raise ValueError(
            f"int8_winograd_conv2d: input is {list(input.shape)}; it must be [N, C, H, W] with C from 1 to "
            f"{MOST_CHANNELS}"
        )
    expected = (-(-out_channels // PANEL_WIDTH), -(-input.shape[1] // 4) * 2, 9, PANEL_WIDTH, 2)
    if out_channels < 1 or weight.shape != expected:
        raise ValueError(
            f"int8_winograd_conv2d: weight is {list(weight.shape)}; it must be {list(expected)}, as "
            f"pack_int8_winograd makes it, since input is {list(input.shape)} and out_channels {out_channels}"
        )
    require_3x3("int8_winograd_conv2d", input, padding)


def _shape(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    zero_point: int,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    padding: int,
    relu: bool,
) -> Tensor:
    return empty_images(input, shape_3x3(input, out_channels, padding))


def _direct_shape(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    zero_point: int,
    bias: Tensor | None,
    window: Sequence[int],
    relu: bool,
) -> Tensor:
    kernel_size, stride, padding, dilation = pairs_of(window)
    sides = [
        (input.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    ]
    return empty_images(input, (input.shape[0], scale.shape[0], *sides))


register(
    "int8_conv2d(Tensor input, Tensor weight, Tensor scale, Tensor? input_scale, int zero_point, "
    "Tensor? bias, int[] window, bool relu) -> Tensor",
    integer_reference.int8_conv2d,
    _direct_shape,
)
register(
    "int8_winograd_conv2d(Tensor input, Tensor weight, Tensor scale, Tensor? input_scale, int zero_point, "
    "Tensor? bias, Tensor? residual, int out_channels, int padding, bool relu) -> Tensor",
    integer_reference.int8_winograd_conv2d,
    _shape,
)
