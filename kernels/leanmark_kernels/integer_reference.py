"""What each integer operator means, in plain torch: the definition its native kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.integer_packing import unpack_int4, unpack_int8_linear, unpack_int8_winograd

SMALLEST = 2.0**-119
"""What is smaller in magnitude counts as zero: its reciprocal would leave float32."""


def quantize_int8(input: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Rows of ``input`` [R, K] as int8 [R, K] and a float32 scale each [R], so that input ≈ int8 * scale.

    A row's largest magnitude becomes 2^(bits - 1) - 1, ties round to even. A row of zeros gets the scale 1;
    one that holds NaN or infinity gets the scale NaN and zeros.
    """
    values, scale, known = _quantize(input, 2 ** (bits - 1) - 1)
    return values, torch.where(known, scale, torch.where(scale.isnan(), scale, 1.0))


def w4a8_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    relu: bool,
) -> Tensor:
    """``x @ w.T + bias``, then ReLU if ``relu``, where x is ``input`` and w the packed weights, both rounded.

    This is MatMulNBits of ONNX Runtime with 4 bits and accuracy_level 4: every group of ``input`` [*, K] is
    rounded to 8 bits with a scale of its own, products within a group are added up as integers, and the
    groups in floating point, here in float64.
    """
    groups = scale.shape[1]
    group = input.shape[-1] // groups if groups else 0
    values, x_scale, _ = _quantize(input.reshape(input.shape[:-1].numel(), groups, group), 127)
    x = values.double()
    w = unpack_int4(weight, out_features).reshape(out_features, groups, group).double()
    dots = torch.einsum("mgk,ngk->mgn", x, w)
    output = torch.einsum("mgn,mg,gn->mn", dots, x_scale.double(), _columns(scale, out_features))
    if zero is not None:
        sums = x.sum(-1) * x_scale.double()
        output = output - sums @ _columns(zero, out_features)
    if bias is not None:
        output = output + bias
    output = torch.relu(output) if relu else output
    return output.to(input.dtype).reshape(*input.shape[:-1], out_features)


def int8_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor,
    zero_point: int,
    bias: Tensor | None,
    out_features: int,
    relu: bool,
) -> Tensor:
    """``((input - zero_point) @ w.T) * (input_scale * scale) + bias``, then ReLU if ``relu``.

    The product is of int64, the rest of float32, one rounding after the other.
    """
    _require_finite("int8_linear", scale)
    depth = input.shape[-1]
    w = unpack_int8_linear(weight, out_features, depth).long()
    rows = input.reshape(input.shape[:-1].numel(), depth).long()
    sums = (rows - zero_point) @ w.T
    output = sums.float() * (input_scale[:, None] * scale)
    if bias is not None:
        output = output + bias
    output = torch.relu(output) if relu else output
    return output.reshape(*input.shape[:-1], out_features)


def int8_dynamic_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    bits: int,
    out_features: int,
    relu: bool,
) -> Tensor:
    """:func:`int8_linear` of what :func:`quantize_int8` makes of the rows of ``input`` [*, K]."""
    values, rounded = quantize_int8(input.reshape(input.shape[:-1].numel(), input.shape[-1]), bits)
    output = int8_linear(values, weight, scale, rounded, 0, bias, out_features, relu)
    return output.reshape(*input.shape[:-1], out_features)


def int8_conv2d(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor | None,
    zero_point: int,
    bias: Tensor | None,
    window: Sequence[int],
    relu: bool,
) -> Tensor:
    """``conv2d(input - zero_point, w) * (input_scale * scale) + bias``, then ReLU if ``relu``.

    Without ``input_scale``, of what :func:`quantize_int8` makes of the images. ``window`` is kernel_size,
    stride, padding and dilation, each for height and width. The convolution is in float64, where integers of
    this size are exact; the rest is of float32, one rounding after the other. Returns [N, O, H', W'] in
    channels_last.
    """
    _require_finite("int8_conv2d", scale)
    input, input_scale = _integers(input, input_scale)
    kernel_size, stride, padding, dilation = (tuple(window[at : at + 2]) for at in (0, 2, 4, 6))
    groups, outputs, channels = weight.shape[0], scale.shape[0], input.shape[1] // weight.shape[0]
    taps = kernel_size[0] * kernel_size[1]
    rows = [unpack_int8_linear(each, outputs // groups, taps * channels) for each in weight]
    w = torch.cat(rows).reshape(outputs, *kernel_size, channels).permute(0, 3, 1, 2)
    if channels == 0:  # torch gives no outputs for no channels
        input, w = (
            each.new_zeros(each.shape[0], count, *each.shape[2:]) for each, count in ((input, groups), (w, 1))
        )
    sums = F.conv2d(input.double() - zero_point, w.double(), None, stride, padding, dilation, groups)
    output = sums.float() * (input_scale[:, None] * scale)[:, :, None, None]
    if bias is not None:
        output = output + bias[:, None, None]
    if relu:
        output = torch.relu(output)
    return output.contiguous(memory_format=torch.channels_last)


def int8_winograd_conv2d(
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
    """``conv2d(input - zero_point, w) * (input_scale * scale) + bias + residual``, then ReLU if ``relu``.

    Without ``input_scale``, of what :func:`quantize_int8` makes of the images. A direct 3x3 convolution of
    stride 1 in float64, where integers of this size are exact; the rest is of float32, one rounding after the
    other. Returns [N, O, H, W] in channels_last.
    """
    _require_finite("int8_winograd_conv2d", scale)
    input, input_scale = _integers(input, input_scale)
    w = unpack_int8_winograd(weight, out_channels, input.shape[1])
    sums = F.conv2d(input.double() - zero_point, w.double(), padding=padding)
    output = sums.float() * (input_scale[:, None] * scale)[:, :, None, None]
    if bias is not None:
        output = output + bias[:, None, None]
    if residual is not None:
        output = output + residual
    if relu:
        output = torch.relu(output)
    return output.contiguous(memory_format=torch.channels_last)


def _integers(images: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    if scale is not None:
        return images, scale
    values, scale = quantize_int8(images.flatten(1), 8)
    return values.view(images.shape), scale


def _quantize(groups: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """``groups`` [..., K] as int8, their scales [...], and where these are neither 0 nor NaN."""
    largest = F.pad(groups, (0, 1)).abs().amax(-1)  # the pad serves K = 0
    finite = largest.isfinite()
    known = finite & (largest >= SMALLEST)
    # A number divided by a tensor would be its reciprocal times the number, off by a bit that ties show.
    inverse = torch.where(known, torch.full_like(largest, most) / largest, 0.0)
    values = (groups * inverse[..., None]).round().nan_to_num(0.0)
    scale = torch.where(known, largest / most, torch.where(finite, 0.0, torch.nan))
    return values.to(torch.int8), scale, known


def _columns(panels: Tensor, out_features: int) -> Tensor:
    """[panels, G, 16] as float64 [G, out_features]."""
    return panels.transpose(0, 1).flatten(1)[:, :out_features].double()


def _require_finite(operator: str, scale: Tensor) -> None:
    if not bool(scale.isfinite().all()):
        raise RuntimeError(f"{operator}: scale must be finite")
