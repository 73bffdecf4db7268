"""Checks that the sparse operators share."""

from __future__ import annotations

import torch

from leanmark_kernels import sparse_packing
from leanmark_kernels.sparse_packing import SparseWeight


def require_packed(operator: str, weight: SparseWeight, rows: int, channels: int, taps: int) -> None:
    """``weight`` is that of ``rows`` outputs, ``channels`` inputs and ``taps`` values per filter."""
    values, indices, starts = weight
    if rows < 1:
        raise ValueError(f"{operator}: the outputs are {rows}; they must be at least 1")
    if values.dim() != 2 or values.shape[1] not in sparse_packing.BLOCKS:
        raise ValueError(f"{operator}: values is {list(values.shape)}; it must be [entries, 1 or 4]")
    if indices.dtype != torch.uint8 or starts.dtype != torch.int32:
        raise TypeError(
            f"{operator}: indices is {indices.dtype} and starts {starts.dtype}; "
            "they must be torch.uint8 and torch.int32, as pack_sparse makes them"
        )
    if indices.shape != values.shape[:1]:
        raise ValueError(
            f"{operator}: indices is {list(indices.shape)}; it must be [{values.shape[0]}], as values"
        )
    groups = -(-rows // values.shape[1])
    expected = groups * -(-channels // sparse_packing.slab_channels(taps)) + 1
    if starts.shape != (expected,):
        raise ValueError(
            f"{operator}: starts is {list(starts.shape)}; it must be [{expected}], as pack_sparse makes it "
            f"for {rows} outputs, {channels} inputs and {taps} taps in blocks of {values.shape[1]}"
        )
