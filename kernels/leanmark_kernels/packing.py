"""Weights in the layouts that the native kernels read, as plain tensors.

Output channels are cut into panels of 16, the last one filled up with zeros, and a panel lies in memory in
the order in which it is read. The layouts are the same for every instruction set.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.weights import require_dtype, require_finite
from leanmark_kernels.winograd_forms import FORMS, form_for

PANEL_WIDTH = 16

LINEAR_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)


def pack_winograd(weight: Tensor, tile: int, stride: int = 1, *, as_stored: bool = False) -> Tensor:
    """The transformed weights G w G^T of a convolution, for :func:`leanmark_kernels.winograd_conv2d`.

    ``weight`` is float32 [O, C, 3, 3] with ``tile`` 2 for F(2x2, 3x3) or 4 for F(4x4, 3x3), or with
    ``stride`` 2 and ``tile`` 2; or it is [O, C, 7, 7] with ``stride`` 2 and ``tile`` 3. Transformed in
    float64; returns float32 [16 or 36, ceil(O / 16), C, 16], for 7x7 with 4 C instead of C.

    ``as_stored``, for F(4x4, 3x3) alone, leaves the transform to every call: a quarter of the memory, and
    faster with AVX-512 where an image has few tiles, so that reading weights takes longer than the transform.
    Returns the numbers of ``weight`` as [ceil(O / 16), C, 3, 3, 16].

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape, tile or stride and for weights
    that are not finite.
    """
    require_dtype("pack_winograd", torch.float32, weight=weight)
    shape = list(weight.shape)
    if len(shape) != 4 or shape[2:] not in ([3, 3], [7, 7]) or 0 in shape:
        raise ValueError(
            f"pack_winograd: weight is {shape}; it must be [O, C, 3, 3] or [O, C, 7, 7] with O and C at "
            "least 1"
        )
    form = form_for(shape[2], stride, tile)
    if form is None:
        legal = [f"{one.tile} with stride {one.stride}" for one in FORMS if one.kernel == shape[2]]
        raise ValueError(f"pack_winograd: tile is {tile}, stride {stride}; tile must be {' or '.join(legal)}")
    require_finite("pack_winograd", weight=weight)
    if as_stored and (tile, stride) != (4, 1):
        raise ValueError(
            f"pack_winograd: as_stored is given with tile {tile} and stride {stride}; they must be 4 and 1"
        )
    if as_stored:
        return _panels(weight.detach().permute(2, 3, 0, 1)).permute(2, 3, 0, 1, 4).contiguous()
    return _panels(form.transformed(weight.detach().double()).float())


def unpack_winograd(packed: Tensor, out_channels: int) -> Tensor:
    """The [out_channels, C, 3, 3] that :func:`pack_winograd` packed ``as_stored``."""
    return packed.permute(0, 4, 1, 2, 3).flatten(0, 1)[:out_channels]


def pack_linear(weight: Tensor) -> Tensor:
    """The weights of a linear layer, for :func:`leanmark_kernels.packed_linear`.

    ``weight`` is [N, K] of dtype float32, float16, bfloat16 or int8. Returns the same numbers as
    [ceil(N / 16), K, 16], where bfloat16 has pairs of K together: [ceil(N / 16), ceil(K / 2), 16, 2].

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape and for weights that are not
    finite.
    """
    require_dtype("pack_linear", *LINEAR_DTYPES, weight=weight)
    if weight.dim() != 2:
        raise ValueError(f"pack_linear: weight is {list(weight.shape)}; it must be [N, K]")
    require_finite("pack_linear", weight=weight)
    panels = _panels(weight.detach())
    if weight.dtype != torch.bfloat16:
        return panels
    paired = F.pad(panels, (0, 0, 0, weight.shape[1] % 2))
    pairs: Tensor = paired.unflatten(1, (-1, 2))
    return pairs.transpose(2, 3).contiguous()


def unpack_linear(packed: Tensor, out_features: int, in_features: int) -> Tensor:
    """The [out_features, in_features] that :func:`pack_linear` packed."""
    if packed.dtype == torch.bfloat16:
        packed = packed.transpose(2, 3).flatten(1, 2)[:, :in_features]
    return packed.transpose(1, 2).flatten(0, 1)[:out_features]


def pack_direct(weight: Tensor) -> Tensor:
    """The weights of a convolution, for :func:`leanmark_kernels.direct_conv2d`.

    ``weight`` is float32 [O, C, H, W]. Returns the same numbers as [ceil(O / 16), H * W * C, 16], the
    channels of a pixel together.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape and for weights that are not
    finite.
    """
    require_dtype("pack_direct", torch.float32, weight=weight)
    if weight.dim() != 4 or 0 in weight.shape:
        raise ValueError(
            f"pack_direct: weight is {list(weight.shape)}; it must be [O, C, H, W], each at least 1"
        )
    require_finite("pack_direct", weight=weight)
    return _panels(weight.detach().permute(0, 2, 3, 1).flatten(1))


def linear_shape(out_features: int, in_features: int, dtype: torch.dtype) -> tuple[int, ...]:
    """The shape that :func:`pack_linear` gives to weights [out_features, in_features] of ``dtype``."""
    panels = -(-out_features // PANEL_WIDTH)
    if dtype == torch.bfloat16:
        return (panels, -(-in_features // 2), PANEL_WIDTH, 2)
    return (panels, in_features, PANEL_WIDTH)


def _panels(rows: Tensor) -> Tensor:
    """[..., N, K] as [..., ceil(N / 16), K, 16]."""
    filled = F.pad(rows, (0, 0, 0, -rows.shape[-2] % PANEL_WIDTH))
    panels: Tensor = filled.unflatten(-2, (-1, PANEL_WIDTH))
    return panels.transpose(-1, -2).contiguous()
