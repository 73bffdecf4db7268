"""How fast this machine can multiply and read at most: what a kernel's share of the ceiling is of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from leanmark_kernels import _native

_STEPS = 4_000_000  # of 12 vectors: about 10 ms, long against waking the threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """With ``threads``: float32 operations per second, a multiply-add being two, in the widest vectors that
    the kernels use, and bytes per second read from memory."""

    threads: int
    flops_per_s: float
    read_bytes_per_s: float


def measure(rounds: int = 9, read_bytes: int = 1 << 28) -> Ceilings:
    """The best of ``rounds``, with the threads that torch has now.

    ``read_bytes`` should be well beyond the last level of cache. With one thread, CPU time is measured, which
    other users of the machine do not count into.

    Raises ``RuntimeError`` where the native operators are not available.
    """
    if not _native.available():
        raise RuntimeError(f"ceilings need the native operators: {_native.why_unavailable()}")
    memory = torch.ones(read_bytes // 4)
    return Ceilings(
        threads=torch.get_num_threads(),
        flops_per_s=_best_rate(lambda: torch.ops.leanmark.multiply_add_ceiling(_STEPS), rounds),
        read_bytes_per_s=_best_rate(lambda: torch.ops.leanmark.read_ceiling(memory), rounds),
    )


def _best_rate(work: Callable[[], int], rounds: int) -> float:
    """Of what ``work`` says it did, per second."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = 0.0
    for _ in range(rounds):
        begin = clock()
        done = work()
        best = max(best, done / (clock() - begin))
    return best
