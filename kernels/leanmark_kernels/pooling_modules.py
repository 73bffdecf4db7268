"""Pooling layers by operators of ours."""

from __future__ import annotations

import math
from typing import Self, cast

from torch import Tensor, fx, nn

from leanmark_kernels.ops.arguments import Pair
from leanmark_kernels.ops.pooling import MOST_TAPS, max_pool2d, mean_pool2d
from leanmark_kernels.packed_layer import require_replaceable

fx.wrap("max_pool2d")  # nodes of a graph that torch.fx traces: their checks need a tensor
fx.wrap("mean_pool2d")


class MaxPool2d(nn.Module):
    """Max pooling by :func:`leanmark_kernels.max_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair, padding: Pair = (0, 0)) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    @staticmethod
    def why_not(pool: nn.MaxPool2d) -> str | None:
        """Why ``pool`` has to stay with torch, or ``None`` where this layer can replace it."""
        if _pair(pool.dilation) != (1, 1):
            return f"dilation is {pool.dilation}; it must be 1"
        for name in ("ceil_mode", "return_indices"):
            if getattr(pool, name):
                return f"{name} is True; it must be False"
        if math.prod(_pair(pool.kernel_size)) > MOST_TAPS:
            return f"kernel_size is {pool.kernel_size}; it must have at most {MOST_TAPS} pixels"
        return None

    @classmethod
    def from_pool(cls, pool: nn.MaxPool2d) -> Self:
        """The layer that computes what ``pool`` does.

        Raises ``ValueError`` with :meth:`why_not` where it cannot.
        """
        require_replaceable(cls, pool, cls.why_not(pool))
        return cls(_pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding))

    def forward(self, input: Tensor) -> Tensor:
        return max_pool2d(input, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MeanPool2d(nn.Module):
    """The mean over all pixels by :func:`leanmark_kernels.mean_pool2d`."""

    @staticmethod
    def why_not(pool: nn.AdaptiveAvgPool2d) -> str | None:
        """Why ``pool`` has to stay with torch, or ``None`` where this layer can replace it."""
        if pool.output_size not in (1, (1, 1)):
            return f"output_size is {pool.output_size}; it must be 1"
        return None

    def forward(self, input: Tensor) -> Tensor:
        return mean_pool2d(input)


def _pair(size: int | tuple[int, ...]) -> Pair:
    return (size, size) if isinstance(size, int) else cast(Pair, tuple(size))
