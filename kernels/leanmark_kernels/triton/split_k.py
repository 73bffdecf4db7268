"""Sums over K shared among programs: each writes its part, and a second launch adds them in a fixed order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leanmark_kernels.triton.configuration import Launch, config, pieces
from leanmark_kernels.triton.device_limits import Limits

BLOCK_N = 128


def partial_sums(output: Tensor, parts: int, dtype: torch.dtype) -> Tensor:
    """Room for the sums of ``parts`` programs per element of ``output`` [M, N]."""
    return output.new_empty((parts, *output.shape), dtype=dtype)


def overlaps(output: Tensor, limits: Limits) -> bool:
    """Whether the second launch may begin during the first: not in the interpreter."""
    return limits.capability >= (9, 0) and output.device.type != "cpu"


def combine(
    partial: Tensor, output: Tensor, epilogue: dict[str, Any], activation: str, limits: Limits
) -> Launch:
    """The launch that adds up ``partial`` and finishes; ``epilogue`` is row_scale .. residual by name."""
    from leanmark_kernels.triton.device.epilogue import combine as function

    parts, rows, columns = partial.shape
    block_m = 1 if rows == 1 else 4
    waits = overlaps(output, limits)
    return Launch(
        function,
        (pieces(columns, BLOCK_N), pieces(rows, block_m)),
        {"partial": partial, **epilogue, "output": output, "M": rows, "N": columns},
        {"ACTIVATION": activation, "WAITS": waits},
        config(2, 1, SPLIT_K=parts, BLOCK_M=block_m, BLOCK_N=BLOCK_N),
        waits,
    )
