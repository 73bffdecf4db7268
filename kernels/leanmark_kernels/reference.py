"""What each operator means, in plain torch: the definition its native kernels are tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.packing import unpack_linear


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``relu(input @ weight.T + bias)``.

    ``input`` is [*, K], ``weight`` [N, K], ``bias`` [N] or ``None``, all of one floating dtype;
    returns [*, N].
    """
    return torch.relu(F.linear(input, weight, bias))


def packed_linear(
    input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, out_features: int, relu: bool
) -> Tensor:
    """``(input @ w.T) * scale + bias``, then ReLU if ``relu``.

    ``input`` is [*, K] of a floating dtype, ``weight`` the packed form of w [out_features, K] as
    :func:`leanmark_kernels.packing.pack_linear` makes it; returns [*, out_features].
    """
    output = F.linear(input, unpack_linear(weight, out_features, input.shape[-1]).to(input.dtype))
    if scale is not None:
        output = output * scale
    if bias is not None:
        output = output + bias
    return torch.relu(output) if relu else output


_INPUT_TRANSFORM = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
"""The matrix B^T of F(2x2, 3x3) and F(4x4, 3x3), by output tile (Lavin and Gray, CVPR 2016, section 4)."""

_OUTPUT_TRANSFORM = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
}
"""The matrix A^T."""


def winograd_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    padding: int,
    relu: bool,
) -> Tensor:
    """A 3x3 convolution of stride 1, plus ``residual``, then ReLU if ``relu``: A^T (U · B^T d B) A per tile.

    ``input`` is [N, C, H, W], ``weight`` U as :func:`leanmark_kernels.packing.pack_winograd` makes it.
    Returns [N, out_channels, H + 2 padding - 2, W + 2 padding - 2] in channels_last.
    """
    points, _, channels, _ = weight.shape
    tile = {16: 2, 36: 4}[points]
    height, width = (size + 2 * padding - 2 for size in input.shape[2:])
    high, wide = (-(-size // tile) for size in (height, width))
    below, right = high * tile - height + padding, wide * tile - width + padding
    padded = F.pad(input, (padding, right, padding, below))
    size = tile + 2
    tiles = padded.unfold(2, size, tile).unfold(3, size, tile)  # [N, C, high, wide, size, size]

    b, a = (input.new_tensor(matrix[tile]) for matrix in (_INPUT_TRANSFORM, _OUTPUT_TRANSFORM))
    transformed = torch.einsum("ai,nchwij,bj->abnchw", b, tiles, b)
    u = weight.transpose(2, 3).reshape(size, size, -1, channels)[:, :, :out_channels]
    products = torch.einsum("aboc,abnchw->abnohw", u, transformed)
    squares = torch.einsum("pa,abnohw,qb->nohpwq", a, products, a)
    output = squares.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]

    if bias is not None:
        output = output + bias[:, None, None]
    if residual is not None:
        output = output + residual
    if relu:
        output = torch.relu(output)
    return output.contiguous(memory_format=torch.channels_last)
