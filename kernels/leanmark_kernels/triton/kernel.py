"""What every kernel of this package offers: its space of configurations, and how a problem is launched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from leanmark_kernels.triton.configuration import Config, Launch
from leanmark_kernels.triton.device_limits import Limits


@dataclass(frozen=True, slots=True)
class Kernel:
    """``space`` holds every configuration that may be tried, a safe choice first.

    ``why_not`` says why a configuration is out of the question for a problem on a GPU, or ``None``;
    ``launches`` are the launches that solve the problem, into the output that is part of it;
    ``key`` tells the problems apart that may want different configurations.
    """

    name: str
    space: tuple[Config, ...]
    why_not: Callable[[Any, Config, Limits], str | None]
    launches: Callable[[Any, Config, Limits], Sequence[Launch]]
    key: Callable[[Any], str]

    def legal(self, problem: Any, limits: Limits) -> tuple[Config, ...]:
        """The configurations for ``problem``, in the order of the space."""
        return tuple(each for each in self.space if self.why_not(problem, each, limits) is None)


def rows_bucket(rows: int) -> int:
    """Row counts that share a tuned configuration: the next power of two."""
    return 1 << max(rows - 1, 0).bit_length()


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def why_shared(stages: int, stage_bytes: int, limits: Limits, store_bytes: int = 0) -> str | None:
    """Why ``stages`` of loads, beside ``store_bytes`` of output, do not fit the shared memory."""
    needed = stages * stage_bytes + store_bytes
    if needed <= limits.shared_bytes:
        return None
    return f"{needed} bytes of shared memory, of {limits.shared_bytes}"


def rows_of(tensor: Tensor) -> Tensor:
    """``tensor`` [*, K] as a contiguous [rows, K]; a view where it is contiguous already."""
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1]).contiguous()
