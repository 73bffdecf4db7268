"""Sparse weights of linear layers in a second layout, for few rows of input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.sparse_packing import SparseWeight, unpack_sparse

WINDOW = 16
"""Outputs of a group, and inputs that a step can reach."""

MOST_INPUTS = 1 << 16
"""Where a window begins is a number of 16 bits."""

_AT_ONCE = 1 << 22  # weights, which bounds the memory for packing


class _Steps(NamedTuple):
    """The steps of some groups. ``values`` and ``numbers`` are in the order in which they are read."""

    values: Tensor
    """float32 [entries]"""
    numbers: Tensor
    """int16 [steps, 6]: mask, window and picks; or of blocks [steps, 2]: window and picks."""
    counts: Tensor
    """int64 [groups, 2]: how many steps and values each group has."""


def pack_few_rows(weight: SparseWeight, rows: int, channels: int) -> Tensor | None:
    """``weight`` of a linear layer [rows, channels], made by ``pack_sparse``, for few rows of input.

    Groups of :data:`WINDOW` outputs are summed in the lanes of a vector, in steps that hold at most one entry
    of each output and whose entries lie within :data:`WINDOW` consecutive inputs. Each step begins at the
    first entry that is left and takes what it reaches.

    Returns uint8: int32 [groups + 1, 2], the first step and the first value of each group; zeros up to a
    multiple of 64 bytes; float32 values, step by step and output by output within one, and WINDOW zeros;
    16-bit [steps, 6], which are the mask of the outputs that have an entry, the first input of the window,
    and for each output in 4 bits the input that it takes. Of blocks of four it is [steps, 2], no mask,
    with 4 bits for each block; outputs without an entry have zeros. ``None`` for more than
    :data:`MOST_INPUTS` inputs.
    """
    if channels > MOST_INPUTS:
        return None
    block = weight.values.shape[1]
    dense = F.pad(unpack_sparse(weight, rows, channels, 1)[..., 0], (0, 0, 0, -rows % WINDOW))
    parts = [_pack(part, block) for part in _chunks(dense.unflatten(0, (-1, WINDOW)))]
    counts = torch.cat([part.counts for part in parts])
    starts = F.pad(counts.cumsum(0), (0, 0, 1, 0)).to(torch.int32).flatten()
    starts = F.pad(starts, (0, -len(starts) % 16))
    values = F.pad(torch.cat([part.values for part in parts]), (0, WINDOW))
    numbers = torch.cat([part.numbers for part in parts])
    return torch.cat([part.flatten().view(torch.uint8) for part in (starts, values, numbers)])


def _chunks(groups: Tensor) -> Iterator[Tensor]:
    yield from groups.split(max(1, _AT_ONCE // groups[0].numel()))


def _pack(dense: Tensor, block: int) -> _Steps:
    """``dense`` is [groups, WINDOW, K]."""
    table = dense.unflatten(1, (-1, block))  # [groups, lanes, block, K]
    windows, taken = _windows(table.ne(0).any(2))
    active = taken >= 0
    steps = active.any(2)
    picks = (taken - windows[..., None]).where(active, 0)  # [groups, steps, lanes]
    where = taken.clamp(min=0).permute(0, 2, 1)[:, :, None].expand(-1, -1, block, -1)
    values = table.gather(3, where.long()).permute(0, 3, 1, 2)  # [groups, steps, lanes, block]
    if block > 1:
        values = values.where(active[..., None], 0)
        numbers, held = [windows[..., None], _nibbles(picks)], steps[..., None].expand(active.shape)
    else:
        numbers, held = [_masks(active), windows[..., None], _parities(picks)], active
    counts = torch.stack([steps.sum(1), held.sum((1, 2)) * block], 1)
    return _Steps(values[held].flatten(), torch.cat(numbers, 2)[steps].to(torch.int16), counts)


def _windows(present: Tensor) -> tuple[Tensor, Tensor]:
    """Where each step begins, [groups, steps], and the input that each lane takes, or -1."""
    depth = present.shape[2]
    place = torch.arange(depth, dtype=torch.int32).where(present, depth)
    following = F.pad(
        place.flip(2).cummin(2).values.flip(2), (0, 1), value=depth
    )  # the next entry from there
    cursor = torch.zeros(*present.shape[:2], 1, dtype=torch.int64)
    windows, taken = [], []
    while True:
        entry = following.gather(2, cursor)[..., 0]
        first = entry.amin(1, keepdim=True)
        if int(first.min()) == depth:
            break
        first = first.clamp(max=max(depth - WINDOW, 0))  # no window reaches beyond the input
        reached = (entry < first + WINDOW) & (entry < depth)
        cursor = torch.where(reached, entry + 1, cursor[..., 0])[..., None].long()
        windows.append(first[:, 0])
        taken.append(entry.where(reached, -1))
    if not windows:
        return place.new_zeros(len(present), 0), place.new_zeros(len(present), 0, present.shape[1])
    return torch.stack(windows, 1), torch.stack(taken, 1)


def _masks(active: Tensor) -> Tensor:
    return (active << torch.arange(WINDOW)).sum(2, keepdim=True)


def _nibbles(picks: Tensor) -> Tensor:
    """Four picks of 4 bits as one number."""
    return (picks << 4 * torch.arange(4)).sum(-1, keepdim=True)


def _parities(picks: Tensor) -> Tensor:
    """16 picks as four numbers: the even lanes in the first two, the odd ones in the others."""
    return _nibbles(picks.unflatten(2, (2, 4, 2)).permute(0, 1, 4, 2, 3)).flatten(2)
