"""Activations as int8, as :func:`leanmark_kernels.triton.int8_linear` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.triton import reference, tuning
from leanmark_kernels.triton.arguments import require_floating
from leanmark_kernels.triton.configuration import Config, Launch, config
from leanmark_kernels.triton.device_limits import Limits
from leanmark_kernels.triton.kernel import Kernel, dtype_name, rows_bucket, rows_of
from leanmark_kernels.triton.registration import register


def quantize_activations(input: Tensor) -> tuple[Tensor, Tensor]:
    """``input`` [*, K] as int8 [*, K] and one float32 scale per row [*], so that input ≈ int8 * scale.

    ``input`` is float16, bfloat16 or float32. Symmetric: a row's largest magnitude becomes 127, ties round to
    even; a row of zeros gets the scale 1. A row with a NaN gets the scale NaN, one with an infinity such a
    product. The backward pass raises ``NotImplementedError``.

    Raises ``TypeError`` for another dtype, ``ValueError`` for an input without dimensions.
    """
    require_floating("quantize_activations", input)
    if input.dim() < 1:
        raise ValueError("quantize_activations: input is a single number; it must be [*, K]")
    values, scale = torch.ops.leanmark_kernels.quantize_activations.default(input)
    return values, for_inference("quantize_activations", scale)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """``values`` int8 and ``output``, the scales [M], of ``input`` [M, K]; all are contiguous."""

    input: Tensor
    values: Tensor
    output: Tensor


def _key(problem: Problem) -> str:
    rows, depth = problem.input.shape
    return f"quantize {dtype_name(problem.input)} M={rows_bucket(rows)} K={depth}"


def _why_not(problem: Problem, config: Config, limits: Limits) -> str | None:
    depth = problem.input.shape[1]
    if config["BLOCK_K"] > max(1024, rows_bucket(depth)):
        return f"pieces of {config['BLOCK_K']} for rows of {depth}"
    return None


def _launches(problem: Problem, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.quantize import quantize

    rows, depth = problem.input.shape
    arguments = {"input": problem.input, "values": problem.values, "scale": problem.output, "K": depth}
    return [Launch(quantize, (rows,), arguments, {}, config)]


KERNEL = Kernel(
    "quantize",
    (config(4, 1, BLOCK_K=1024), config(8, 1, BLOCK_K=4096)),
    _why_not,
    _launches,
    _key,
)


def _compute(input: Tensor) -> tuple[Tensor, Tensor]:
    values, scale = _shape(input)
    tuning.solve((KERNEL,), Problem(rows_of(input), rows_of(values), scale.view(-1)))
    return values, scale


def _shape(input: Tensor) -> tuple[Tensor, Tensor]:
    values = input.new_empty(input.shape, dtype=torch.int8)
    return values, input.new_empty(input.shape[:-1], dtype=torch.float32)


register(
    "quantize_activations(Tensor input) -> (Tensor, Tensor)",
    _compute,
    reference.quantize_activations,
    _shape,
)
