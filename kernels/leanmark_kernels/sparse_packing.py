"""Sparse weights in the layout that the native kernels read, as plain tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.weights import require_dtype, require_finite

BLOCKS = (1, 4)
"""How many consecutive outputs share the places of their entries."""

MOST_TAPS = 256
"""Of one filter: an index is a byte."""


class SparseWeight(NamedTuple):
    """What is left of a weight [O, K] or [O, C, H, W], in the order in which it is read.

    The input channels are cut into slabs of :func:`slab_channels`, the outputs into groups of ``block``.
    """

    values: Tensor
    """float32 [entries, block]: slab by slab, and group by group within one."""
    indices: Tensor
    """uint8 [entries]: the channel within its slab, times H W, plus the tap."""
    starts: Tensor
    """int32 [slabs * groups + 1]: the first entry of each group in each slab."""


def slab_channels(taps: int) -> int:
    """Input channels of one slab, for filters of ``taps`` values each."""
    return MOST_TAPS // taps


def pack_sparse(weight: Tensor, block: int = 1, groups: int = 1) -> SparseWeight:
    """The values of ``weight`` that are not zero, for the sparse operators.

    ``weight`` is float32 [O, K] of a linear layer or [O, C / groups, H, W] of a convolution. ``block`` is 1
    for any pattern of zeros, or 4 where four consecutive outputs share theirs: a value is then kept if any of
    the four is not zero, so that other patterns are computed correctly too, only slower.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape or block, for weights that are
    not finite, and for weights that are all zero, which need no kernel.
    """
    require_dtype("pack_sparse", torch.float32, weight=weight)
    if weight.dim() not in (2, 4) or 0 in weight.shape:
        raise ValueError(
            f"pack_sparse: weight is {list(weight.shape)}; it must be [O, K] or [O, C, H, W], each at least 1"
        )
    if weight[0, 0].numel() > MOST_TAPS:
        raise ValueError(
            f"pack_sparse: weight has {weight[0, 0].numel()} taps; H W must be at most {MOST_TAPS}"
        )
    if block not in BLOCKS:
        raise ValueError(f"pack_sparse: block is {block}; it must be 1 or 4")
    if groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"pack_sparse: groups is {groups}; it must divide {weight.shape[0]}, the outputs")
    require_finite("pack_sparse", weight=weight)
    if not bool(weight.any()):
        raise ValueError(
            "pack_sparse: weight has a sparsity of 100 %; at least one value must not be zero. "
            "Remove such a layer instead."
        )
    return _pack(
        _ungrouped(weight.detach(), groups).flatten(2) if weight.dim() == 4 else weight.detach()[..., None],
        block,
    )


def _ungrouped(weight: Tensor, groups: int) -> Tensor:
    """[O, C / groups, H, W] as [O, C, H, W], with zeros for the channels of other groups."""
    parts = weight.unflatten(0, (groups, -1))
    placed = [
        F.pad(p, (0, 0, 0, 0, i * p.shape[1], (groups - 1 - i) * p.shape[1])) for i, p in enumerate(parts)
    ]
    return torch.cat(placed)


def _pack(weight: Tensor, block: int) -> SparseWeight:
    """``weight`` [O, C, taps]."""
    rows, channels, taps = weight.shape
    slab = slab_channels(taps)
    filled = F.pad(weight, (0, 0, 0, -channels % slab, 0, -rows % block))
    table = filled.reshape(-(-rows // block), block, -(-channels // slab), slab * taps).permute(2, 0, 3, 1)
    present = table.ne(0).any(3)
    counts = present.sum(2).flatten()
    return SparseWeight(
        values=table[present].contiguous(),
        indices=present.nonzero()[:, 2].to(torch.uint8),
        starts=F.pad(counts.cumsum(0), (1, 0)).to(torch.int32),
    )


def unpack_sparse(weight: SparseWeight, rows: int, channels: int, taps: int) -> Tensor:
    """The dense [rows, channels, taps] that :func:`pack_sparse` packed."""
    values, indices, starts = weight
    block, slab = values.shape[1], slab_channels(taps)
    groups, slabs = -(-rows // block), -(-channels // slab)
    place = torch.repeat_interleave(starts.diff())  # which group of which slab each entry is in
    table = values.new_zeros(slabs * groups, slab * taps, block)
    table[place, indices.long()] = values
    dense = table.unflatten(0, (slabs, groups)).permute(1, 3, 0, 2)
    filled: Tensor = dense.reshape(groups * block, slabs * slab, taps)
    return filled[:rows, :channels].contiguous()


def sparsity(weight: SparseWeight, size: int) -> float:
    """The share of zeros among the ``size`` values of the weight that was packed, as stored."""
    return 1 - weight.values.numel() / size
