"""Weights in the layouts that the Triton kernels read, as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.weights import require_finite

UNIT = 128
"""Columns of weights that lie together for each output."""

BLOCKS = (64, 128)


def pack_weight_only(weight: Tensor, bits: int, group_size: int) -> tuple[Tensor, Tensor]:
    """Quantizes and packs ``weight`` for :func:`leanmark_kernels.triton.weight_only_linear`.

    ``weight`` is [N, K] of a floating dtype, ``bits`` 8 or 4, ``group_size`` a multiple of 128: that many
    neighbours along K share a scale; K or more means one scale per output. Symmetric: the largest magnitude
    of a group becomes 127 or 7, ties round to even, a group of zeros gets the scale 1.

    Returns int8 [ceil(K / 128), N, 128] or uint8 [ceil(K / 128), N, 64], and float32 scales [groups, N]. What
    is stored is w + 8 or w + 128, in words of 32 bits whose halves hold neighbours along K: of a unit of 128,
    word i holds the columns 32 p + 2 i and 32 p + 2 i + 1 from its bits 4 p and 4 p + 16 on, or, of 8 bits,
    64 p + 2 i and 64 p + 2 i + 1 from 8 p and 8 p + 16 on.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape, ``bits`` or ``group_size``, and
    for weights that are not finite.
    """
    if not weight.is_floating_point():
        raise TypeError(f"pack_weight_only: weight is {weight.dtype}; it must be floating")
    if weight.dim() != 2 or 0 in weight.shape:
        raise ValueError(f"pack_weight_only: weight is {list(weight.shape)}; it must be [N, K], not empty")
    if bits not in (4, 8):
        raise ValueError(f"pack_weight_only: bits is {bits}; it must be 4 or 8")
    require_group_size("pack_weight_only", group_size)
    require_finite("pack_weight_only", weight=weight)
    depth = weight.shape[1]
    padded = F.pad(weight.detach().float(), (0, -depth % UNIT))
    span = min(group_size, padded.shape[1])
    grouped = F.pad(padded, (0, -padded.shape[1] % span)).unflatten(1, (-1, span))
    largest = grouped.abs().amax(2)
    top = 127 if bits == 8 else 7
    scale = torch.where(largest > 0, largest / top, 1.0)
    integers = (grouped / scale[:, :, None]).round().clamp(-top, top).to(torch.int8)
    integers = integers.flatten(1)[:, : padded.shape[1]]
    units = integers.unflatten(1, (-1, UNIT)).transpose(0, 1)  # [units, N, 128]
    return _in_words(units, bits), scale.t().contiguous()


def _in_words(units: Tensor, bits: int) -> Tensor:
    """Integers [units, N, 128] as :func:`pack_weight_only` stores them."""
    parts = 16 // bits
    excess = units.to(torch.int16) + (8 if bits == 4 else 128)
    ordered = excess.unflatten(2, (parts, -1, 2)).permute(0, 1, 3, 4, 2)  # [units, N, word, half, part]
    stored: Tensor = ordered.flatten(2).to(torch.uint8)
    if bits == 8:
        return stored.view(torch.int8)
    return stored[..., ::2] | (stored[..., 1::2] << 4)


def _out_of_words(packed: Tensor) -> Tensor:
    """The integers [units, N, 128] that ``packed`` holds."""
    if packed.dtype == torch.uint8:
        excess, parts = torch.stack([packed & 15, packed >> 4], 3).flatten(2), 4
    else:
        excess, parts = packed.view(torch.uint8), 2
    integers = excess.to(torch.int16) - (8 if parts == 4 else 128)
    ordered: Tensor = integers.unflatten(2, (-1, 2, parts)).permute(0, 1, 4, 2, 3)
    return ordered.flatten(2)


def unpack_weight_only(packed: Tensor, scale: Tensor, group_size: int, depth: int) -> Tensor:
    """The float32 [N, ``depth``] that ``packed`` and ``scale`` stand for."""
    units = _out_of_words(packed).float()
    group = torch.arange(units.shape[0], device=scale.device) * UNIT // group_size
    scaled = units * scale[group][:, :, None]
    return scaled.transpose(0, 1).flatten(1)[:, :depth]


def require_group_size(function: str, group_size: int) -> None:
    if group_size < UNIT or group_size % UNIT != 0:
        raise ValueError(f"{function}: group_size is {group_size}; it must be a positive multiple of {UNIT}")


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A matrix [N, K] of which only some square blocks are stored: compressed sparse rows of blocks.

    ``values`` is [blocks, size, size], ``columns`` int32 [blocks] says which columns of blocks they are,
    ``offsets`` int32 [N / size + 1] where each row of blocks begins, ``order`` int32 [N / size] lists the
    rows of blocks from the longest to the shortest.
    """

    values: Tensor
    columns: Tensor
    offsets: Tensor
    order: Tensor

    @property
    def size(self) -> int:
        return self.values.shape[-1]

    def dense(self, depth: int) -> Tensor:
        """The whole matrix, with ``depth`` columns."""
        high, wide = self.offsets.numel() - 1, depth // self.size
        blocks = self.values.new_zeros(high, wide, self.size, self.size)
        lengths = self.offsets.diff().long()
        line = torch.arange(high, device=lengths.device).repeat_interleave(lengths)
        blocks[line, self.columns.long()] = self.values
        return blocks.transpose(1, 2).reshape(high * self.size, depth)


def zero_share(weight: Tensor, size: int) -> float:
    """The share of blocks of ``size`` x ``size`` of ``weight`` [N, K] that are all zero; 0 where none fit."""
    if weight.dim() != 2 or any(length % size for length in weight.shape):
        return 0.0
    return float((_blocks(weight, size) == 0).flatten(2).all(2).float().mean())


def _blocks(weight: Tensor, size: int) -> Tensor:
    """``weight`` [N, K] as [N / size, K / size, size, size]."""
    blocks: Tensor = weight.unflatten(1, (-1, size)).unflatten(0, (-1, size))
    return blocks.transpose(1, 2)


def pack_blocks(weight: Tensor, size: int) -> Blocks:
    """``weight`` [N, K] without its blocks of ``size`` x ``size`` (64 or 128) that are all zero.

    Raises ``ValueError`` where N or K is not a multiple of ``size``, or ``size`` is another.
    """
    if size not in BLOCKS:
        raise ValueError(f"pack_blocks: size is {size}; it must be 64 or 128")
    if weight.dim() != 2 or 0 in weight.shape or any(length % size for length in weight.shape):
        raise ValueError(
            f"pack_blocks: weight is {list(weight.shape)}; it must be [N, K], both multiples of {size}"
        )
    blocks = _blocks(weight.detach(), size)
    present = (blocks != 0).flatten(2).any(2)
    lengths = present.sum(1)
    return Blocks(
        values=blocks[present].contiguous(),
        columns=present.nonzero()[:, 1].int(),
        offsets=F.pad(lengths.cumsum(0), (1, 0)).int(),
        order=lengths.argsort(descending=True, stable=True).int(),
    )
