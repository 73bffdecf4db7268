"""Weights as integers, in the layouts that the native integer kernels read, as plain tensors.

As in :mod:`leanmark_kernels.packing`, output channels are cut into panels of 16, the last one filled up, and
the layouts are the same for every instruction set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.packing import PANEL_WIDTH
from leanmark_kernels.weights import require_dtype, require_finite

GROUP_STEP = 32
"""The groups of 4-bit weights are a multiple of it."""

DEPTH_STEP = 8
MOST_DEPTH = 65536
MOST_CHANNELS = 1820
FOOTER = 32
"""int32 values behind the int8 weights of a panel: 16 column sums, the largest pair and quad, zeros."""


class Quantized(NamedTuple):
    """Integers that stand for (values - zero_point) * scale."""

    values: Tensor
    """int8 or uint8 [rows, ...]"""
    scale: Tensor
    """float32 [1], or [rows] with one value for each row"""
    zero_point: int = 0
    """one of the values that the dtype has"""


class PackedInt8(NamedTuple):
    """8-bit weights of a layer, packed, and the scale of each output."""

    weight: Tensor
    """as the function for its operator packs it: ``pack_int8_linear`` or ``pack_int8_winograd``"""
    scale: Tensor
    """float32 [N]"""


class Int4Weight(NamedTuple):
    """w ≈ (values - zero_point) * scale, group by group; without ``zero_point`` it is 8."""

    values: Tensor
    """uint8 [N, K], from 0 to 15"""
    scale: Tensor
    """float32 [N, K / group]"""
    zero_point: Tensor | None
    """uint8 [N, K / group], from 0 to 15"""


class PackedInt4(NamedTuple):
    """The arguments ``weight``, ``scale`` and ``zero`` of :func:`leanmark_kernels.w4a8_linear`."""

    weight: Tensor
    """uint8 [ceil(N / 16), K / 8, 16, 4]: four k in the low nibbles, the next four in the high ones"""
    scale: Tensor
    """float32 [ceil(N / 16), K / group, 16]"""
    zero: Tensor | None
    """as ``scale``: scale * (zero point - 8)"""


def quantize_int4(weight: Tensor, *, group: int = 32, zero_points: bool = False) -> Int4Weight:
    """``weight`` [N, K] rounded to 4 bits, as ONNX Runtime's blockwise quantizer does it.

    Symmetric: the value of the largest magnitude in a group becomes -8, so scale = that value / -8. With
    ``zero_points``: 0 and the extremes of a group are spread over 0 to 15. Ties round to even; a group of
    zeros gets the scale 1 and the zero point 8.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for another shape, for a ``group``
    that is no multiple of 32 or does not divide K, and for weights that are not finite.
    """
    require("quantize_int4", weight, torch.float32, dims=2, layout="[N, K]")
    require_group("quantize_int4", weight.shape[1], group)
    require_finite("quantize_int4", weight=weight)
    groups = weight.detach().unflatten(1, (weight.shape[1] // group, group))
    low, high = (groups.new_zeros(groups.shape[:2]) for _ in "lh")
    if groups.numel():
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    if zero_points:
        scale = _or_one((high - low) / 15)
        zero_point = torch.where(high > low, (-low / scale).round().clamp(0, 15), 8)
    else:
        scale = _or_one(torch.where(high > -low, high, low) / -8)
        zero_point = torch.full_like(scale, 8)
    values = (groups / scale[..., None]).round() + zero_point[..., None]
    return Int4Weight(
        values.clamp(0, 15).to(torch.uint8).flatten(1),
        scale,
        zero_point.to(torch.uint8) if zero_points else None,
    )


def pack_int4(weight: Int4Weight) -> PackedInt4:
    """The weights of a linear layer, for :func:`leanmark_kernels.w4a8_linear`.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes that do not fit, for groups that are not
    a multiple of 32 and for scales that are not finite.
    """
    values, scale, zero_point = weight
    require("pack_int4", values, torch.uint8, dims=2, layout="[N, K]", name="values")
    rows, depth = values.shape
    _check_scales(values, scale, zero_point)
    filled = F.pad(values, (0, 0, 0, -rows % PANEL_WIDTH), value=8)
    if bool((filled > 15).any()):
        raise ValueError(f"pack_int4: values go up to {int(filled.max())}; they must be from 0 to 15")
    halves = filled.unflatten(1, (depth // DEPTH_STEP, 2, 4))
    lines = (halves[:, :, 0] | halves[:, :, 1] << 4).unflatten(0, (-1 if rows else 0, PANEL_WIDTH))
    zero = None if zero_point is None else _panels(scale * (zero_point.float() - 8))
    return PackedInt4(lines.transpose(1, 2).contiguous(), _panels(scale), zero)


def unpack_int4(weight: Tensor, out_features: int) -> Tensor:
    """``values`` - 8 as int8 [out_features, K]; the inverse of :func:`pack_int4`."""
    panels, lines, width, _ = weight.shape
    halves = torch.stack((weight & 15, weight >> 4), dim=3).transpose(1, 2)
    values = halves.reshape(panels * width, lines * DEPTH_STEP).to(torch.int8)
    return values[:out_features] - 8


def quantize_channels(weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """``weight`` [N, ...] as int8 of the same shape and one float32 scale [N], so that weight ≈ int8 * scale.

    Symmetric: the largest magnitude of a channel becomes 2^(bits - 1) - 1, ties round to even; a channel of
    zeros gets the scale 1. With ``bits`` 7, products are exact in faster arithmetic on CPUs without VNNI.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for other ``bits`` and for weights
    that are not finite.
    """
    require("quantize_channels", weight, torch.float32, dims=None, layout="[N, ...]")
    require_bits("quantize_channels", bits)
    require_finite("quantize_channels", weight=weight)
    most = 2 ** (bits - 1) - 1
    rows = weight.detach().flatten(1)
    scale = _or_one(F.pad(rows, (0, 1)).abs().amax(1) / most)  # the pad serves K = 0
    values = (rows / scale[:, None]).round().clamp(-most, most).to(torch.int8)
    return values.view(weight.shape), scale


def pack_int8_linear(weight: Tensor) -> Tensor:
    """The weights int8 [N, K] of a linear layer, for :func:`leanmark_kernels.int8_linear`.

    Returns int8 [ceil(N / 16), ceil(K / 8) * 128 + 128]: a panel is [K / 4, 16, 4], then its footer.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape and for K above 65536.
    """
    require("pack_int8_linear", weight, torch.int8, dims=2, layout="[N, K]")
    rows, depth = weight.shape
    if depth > MOST_DEPTH:
        raise ValueError(
            f"pack_int8_linear: weight is {list(weight.shape)}; K must be at most {MOST_DEPTH}, "
            "or a sum could leave 32 bits"
        )
    filled = F.pad(weight, (0, -depth % DEPTH_STEP, 0, -rows % PANEL_WIDTH))
    panels, padded = filled.shape[0] // PANEL_WIDTH, filled.shape[1]
    lines = filled.view(panels, PANEL_WIDTH, padded // 4, 4).transpose(1, 2)
    footer = torch.zeros(panels, FOOTER, dtype=torch.int32)
    wide = filled.view(panels, PANEL_WIDTH, padded // DEPTH_STEP, 2, 2, 2).int()
    footer[:, :PANEL_WIDTH] = wide.sum((2, 3, 4, 5))
    for sign in (1, -1) if wide.numel() else ():
        pairs = (wide * sign).clamp(min=0).sum(-1)
        footer[:, PANEL_WIDTH] = footer[:, PANEL_WIDTH].maximum(pairs.amax((1, 2, 3, 4)))
        footer[:, PANEL_WIDTH + 1] = footer[:, PANEL_WIDTH + 1].maximum(pairs.sum(3).amax((1, 2, 3)))
    return torch.cat((lines.reshape(panels, padded * PANEL_WIDTH), footer.view(torch.int8)), 1)


def int8_linear_shape(out_features: int, in_features: int) -> tuple[int, int]:
    """The shape that :func:`pack_int8_linear` gives to weights [out_features, in_features]."""
    padded = -(-in_features // DEPTH_STEP) * DEPTH_STEP
    return (-(-out_features // PANEL_WIDTH), padded * PANEL_WIDTH + 4 * FOOTER)


def unpack_int8_linear(packed: Tensor, out_features: int, in_features: int) -> Tensor:
    """The int8 [out_features, in_features] that :func:`pack_int8_linear` packed."""
    padded = packed.shape[1] // PANEL_WIDTH - 4 * FOOTER // PANEL_WIDTH
    lines = packed[:, : padded * PANEL_WIDTH].reshape(packed.shape[0], padded // 4, PANEL_WIDTH, 4)
    rows = lines.transpose(1, 2).reshape(packed.shape[0] * PANEL_WIDTH, padded)
    return rows[:out_features, :in_features]


def pack_int8_winograd(weight: Tensor) -> Tensor:
    """The weights of a 3x3 convolution, for :func:`leanmark_kernels.int8_winograd_conv2d`.

    ``weight`` is int8 [O, C, 3, 3]. Returns int8 [ceil(O / 16), ceil(C / 4) * 2, 9, 16, 2], pairs of channels
    together. They are transformed in every call, since they have 8 times as many bytes then.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape and for C above 1820.
    """
    require("pack_int8_winograd", weight, torch.int8, dims=4, layout="[O, C, 3, 3]")
    if weight.shape[2:] != (3, 3) or 0 in weight.shape or weight.shape[1] > MOST_CHANNELS:
        raise ValueError(
            f"pack_int8_winograd: weight is {list(weight.shape)}; it must be [O, C, 3, 3] with O at least 1 "
            f"and C from 1 to {MOST_CHANNELS}, or a sum could leave 32 bits"
        )
    filled = F.pad(weight.flatten(2), (0, 0, 0, -weight.shape[1] % 4, 0, -weight.shape[0] % PANEL_WIDTH))
    pairs: Tensor = filled.unflatten(1, (-1, 2)).unflatten(0, (-1, PANEL_WIDTH))
    return pairs.permute(0, 2, 4, 1, 3).contiguous()


def unpack_int8_winograd(packed: Tensor, out_channels: int, in_channels: int) -> Tensor:
    """The int8 [out_channels, in_channels, 3, 3] that :func:`pack_int8_winograd` packed."""
    weight = packed.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    return weight[:out_channels, :in_channels].reshape(out_channels, in_channels, 3, 3)


def require(
    function: str, tensor: Tensor, dtype: torch.dtype, *, dims: int | None, layout: str, name: str = "weight"
) -> None:
    require_dtype(function, dtype, **{name: tensor})
    if tensor.dim() != dims and (dims is not None or tensor.dim() < 2):
        raise ValueError(f"{function}: {name} is {list(tensor.shape)}; it must be {layout}")


def require_group(function: str, depth: int, group: int) -> None:
    if group < 1 or group % GROUP_STEP or depth % group:
        legal = [g for g in range(GROUP_STEP, depth + 1, GROUP_STEP) if depth % g == 0]
        raise ValueError(
            f"{function}: group is {group}; it must be a multiple of {GROUP_STEP} that divides K = {depth}: "
            f"{f'one of {legal}' if legal else f'there is none, so K must be a multiple of {GROUP_STEP}'}"
        )


def require_bits(function: str, bits: int) -> None:
    if bits not in (7, 8):
        raise ValueError(f"{function}: bits is {bits}; it must be 7 or 8")


def _check_scales(values: Tensor, scale: Tensor, zero_point: Tensor | None) -> None:
    rows, depth = values.shape
    require("pack_int4", scale, torch.float32, dims=2, layout="[N, K / group]", name="scale")
    if scale.shape[0] != rows:
        raise ValueError(f"pack_int4: scale is {list(scale.shape)}; it must be [{rows}, K / group]")
    groups = scale.shape[1]
    if depth % GROUP_STEP or (depth and (not groups or depth % (groups * GROUP_STEP))):
        raise ValueError(
            f"pack_int4: scale is {list(scale.shape)} and values are {list(values.shape)}; the groups of "
            f"scale must cut K = {depth} into multiples of {GROUP_STEP}"
        )
    require_finite("pack_int4", scale=scale)
    if zero_point is None:
        return
    require("pack_int4", zero_point, torch.uint8, dims=2, layout="as scale", name="zero_point")
    if zero_point.shape != scale.shape:
        raise ValueError(f"pack_int4: zero_point is {list(zero_point.shape)}; it must be {list(scale.shape)}")


def _panels(rows: Tensor) -> Tensor:
    """[N, G] as [ceil(N / 16), G, 16]."""
    filled = F.pad(rows, (0, 0, 0, -rows.shape[0] % PANEL_WIDTH))
    panels = filled.view(filled.shape[0] // PANEL_WIDTH, PANEL_WIDTH, rows.shape[1])
    return panels.transpose(1, 2).contiguous()


def _or_one(scale: Tensor) -> Tensor:
    return torch.where(scale != 0, scale, 1.0)
