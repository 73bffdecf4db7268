"""What this GPU can do at most, measured: the roofs that the share of a kernel is taken of."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from gpu_stage import Call, Stage

_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Operations per second by the unit that multiplies, and bytes per second of memory."""

    bfloat16: float
    int8: float
    float32: float
    read: float
    copy: float

    def floor_s(self, unit: str, operations: int, bytes_moved: int) -> float:
        """The least time for so much work (Williams et al., "Roofline", CACM 2009)."""
        per_s: float = asdict(self)[unit]
        return max(operations / per_s, bytes_moved / max(self.read, self.copy))

    def share(self, unit: str, operations: int, bytes_moved: int, seconds: float) -> float:
        """Of the roof, what ``seconds`` reach."""
        return self.floor_s(unit, operations, bytes_moved) / seconds


def measure(stage: Stage) -> Ceilings:
    """By cuBLAS on large squares of random numbers, and by torch's copy and reduction of gigabytes."""
    size, megabytes = (8192, 4096) if stage.large else (64, 1)
    operations = 2 * size**3
    found = {
        "bfloat16": operations / _median_s(stage, _product(stage, size, torch.bfloat16)),
        "int8": operations / _median_s(stage, _integers(stage, size)),
        "float32": operations / 8 / _median_s(stage, _product(stage, size // 2, torch.float32)),
    }
    source = torch.randn(megabytes * 2**18, device=stage.device)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.nbytes / _median_s(stage, lambda: target.copy_(source))
    found["read"] = source.nbytes / _median_s(stage, lambda: source.sum())
    return Ceilings(**found)


def _product(stage: Stage, size: int, dtype: torch.dtype) -> Call:
    left, right = (torch.randn(size, size, device=stage.device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right.t(), out=out)


def _integers(stage: Stage, size: int) -> Call:
    left, right = (
        torch.randint(-127, 128, (size, size), dtype=torch.int8, device=stage.device) for _ in range(2)
    )
    return lambda: torch._int_mm(left, right.t())


def _median_s(stage: Stage, call: Callable[[], object]) -> float:
    for _ in range(3):
        call()
    marks = []
    for _ in range(_ROUNDS):
        stage.hold()
        begin = stage.mark()
        call()
        marks.append((begin, stage.mark()))
    stage.synchronize()
    return statistics.median(stage.seconds(begin, end) for begin, end in marks)
