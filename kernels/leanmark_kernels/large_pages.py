"""Weights in large pages: read through once per call, each small page would miss the table of addresses."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

SIZE = 2 << 20
"""Bytes of a large page on x86-64, and on arm64 with pages of 4 KiB."""


def in_large_pages(tensor: Tensor) -> Tensor:
    """A copy of ``tensor`` in memory that the system may give in large pages; itself where that is no use.

    It is none for less than such a page, and the system must have them (Linux: transparent huge pages,
    ``madvise`` or ``always``).
    """
    if tensor.nbytes < SIZE or tensor.device.type != "cpu" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return tensor
    memory = mmap.mmap(-1, tensor.nbytes + SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return tensor  # a kernel without them
    start = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    aligned = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=-start % SIZE)
    return aligned.view(tensor.shape).copy_(tensor.detach())
