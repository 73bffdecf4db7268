"""Linear layers of which only some square blocks of weights are stored and multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.triton import packing, reference, tuning
from leanmark_kernels.triton.arguments import (
    require_activation,
    require_device,
    require_dtype,
    require_floating,
    require_shape,
    require_vector,
)
from leanmark_kernels.triton.configuration import Config, Launch, config, pieces
from leanmark_kernels.triton.device_limits import Limits
from leanmark_kernels.triton.kernel import Kernel, dtype_name, rows_bucket, rows_of, why_shared
from leanmark_kernels.triton.registration import register


def block_sparse_linear(
    input: Tensor,
    weight: packing.Blocks,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ w.T + bias + residual)`` for a w [N, K] with empty blocks; for inference.

    ``input`` is [*, K] of float16, bfloat16 or float32, K a multiple of the block size; ``weight`` is what
    :func:`leanmark_kernels.triton.packing.pack_blocks` made of w, of the input's dtype as ``bias`` [N] and
    ``residual`` [*, N] are.
    Returns [*, N]. Empty blocks cost nothing, and a NaN in the input does not meet their zeros. Products are
    added up in float32.

    ``weight.columns`` must lie within K: checking them would make the CPU wait for the GPU.

    Raises ``TypeError`` for dtypes, ``ValueError`` for shapes, devices or an activation that do not fit. The
    backward pass raises ``NotImplementedError``.
    """
    require_floating("block_sparse_linear", input, values=weight.values, bias=bias, residual=residual)
    indices = {"columns": weight.columns, "offsets": weight.offsets, "order": weight.order}
    require_dtype("block_sparse_linear", torch.int32, **indices)
    require_activation("block_sparse_linear", activation)
    _check_shapes(input, weight)
    columns = weight.order.numel() * weight.size
    require_vector("block_sparse_linear", columns, bias=bias)
    require_shape("block_sparse_linear", "residual", residual, *input.shape[:-1], columns)
    tensors = {"values": weight.values, "bias": bias, "residual": residual}
    require_device("block_sparse_linear", input, **tensors, **indices)
    output: Tensor = torch.ops.leanmark_kernels.block_sparse_linear.default(
        input, weight.values, weight.columns, weight.offsets, weight.order, bias, residual, activation
    )
    return for_inference("block_sparse_linear", output)


def _check_shapes(input: Tensor, weight: packing.Blocks) -> None:
    shape = weight.values.shape
    if len(shape) != 3 or shape[1] != shape[2] or shape[2] not in packing.BLOCKS:
        raise ValueError(
            f"block_sparse_linear: values is {list(shape)}; it must be [blocks, 64, 64] or [blocks, 128, 128]"
        )
    if weight.values.numel() >= 2**31:
        raise ValueError(
            f"block_sparse_linear: values has {weight.values.numel()} numbers; 2^31 are too many"
        )
    if input.dim() < 1 or input.shape[-1] % weight.size != 0:
        raise ValueError(
            f"block_sparse_linear: input is {list(input.shape)}; it must be [*, K], "
            f"K a multiple of {weight.size}"
        )
    require_shape("block_sparse_linear", "columns", weight.columns, shape[0])
    if weight.offsets.dim() != 1 or weight.offsets.numel() < 1:
        raise ValueError(
            f"block_sparse_linear: offsets is {list(weight.offsets.shape)}; it must be [rows of blocks + 1]"
        )
    require_shape("block_sparse_linear", "order", weight.order, weight.offsets.numel() - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """``output`` [M, N] is to be ``activation(input [M, K] @ weight.T + bias + residual [M, N])``; all are
    contiguous."""

    input: Tensor
    weight: packing.Blocks
    bias: Tensor | None
    output: Tensor
    activation: str
    residual: Tensor | None = None


def _key(problem: Problem) -> str:
    m, n = problem.output.shape
    blocks = problem.weight.values.shape[0]
    return (
        f"block_sparse {dtype_name(problem.input)} block={problem.weight.size} M={rows_bucket(m)} N={n} "
        f"K={problem.input.shape[1]} blocks={rows_bucket(blocks)}"
    )


GROUP_ROWS = 2048
"""Rows of the input that meet all of the weight before the next ones do: 32 MiB of 16 bits at K = 8192, which
the L2 of a Hopper GPU keeps. All rows at once would be read again for every few rows of blocks."""


def _why_not(problem: Problem, config: Config, limits: Limits) -> str | None:
    m, size = config["BLOCK_M"], problem.weight.size
    if m > max(16, rows_bucket(problem.input.shape[0])):
        return f"tiles of {m} rows for {problem.input.shape[0]}"
    if config["BLOCK_K"] > size:
        return f"steps of {config['BLOCK_K']} in blocks of {size}"
    if m * size > (128 if limits.descriptors else 64) * 32 * config.warps:
        return "so many accumulators per thread that they spill"
    # Of the stages, the column of a block is on its way in the first half, the block in the second.
    return why_shared(config.stages // 2 + 1, (m + size) * config["BLOCK_K"] * problem.input.itemsize, limits)


def _launches(problem: Problem, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.block_sparse import block_sparse

    weight = problem.weight
    m, n = problem.output.shape
    arguments = {
        "input": problem.input,
        "values": weight.values,
        "block_columns": weight.columns,
        "offsets": weight.offsets,
        "order": weight.order,
        "bias": problem.bias,
        "residual": problem.residual,
        "output": problem.output,
        "M": m,
        "N": n,
        "K": problem.input.shape[1],
    }
    grid = (pieces(m, config["BLOCK_M"]) * weight.order.numel(),)
    constants = {
        "ACTIVATION": problem.activation,
        "BLOCK": weight.size,
        "GROUP_M": GROUP_ROWS // config["BLOCK_M"],
        "HALVES": config["BLOCK_M"] * weight.size > 64 * 32 * config.warps,
    }
    return [Launch(block_sparse, grid, arguments, constants, config)]


KERNEL = Kernel(
    "block_sparse",
    tuple(
        config(warps, stages, BLOCK_M=m, BLOCK_K=k)
        for m, k, warps, stages in (
            (128, 64, 8, 6),
            (256, 64, 8, 6),
            (128, 64, 4, 6),
            (64, 64, 4, 6),
            (16, 64, 4, 7),
        )
    ),
    _why_not,
    _launches,
    _key,
)


def _compute(
    input: Tensor,
    values: Tensor,
    columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    output = _shape(input, values, columns, offsets, order, bias, residual, activation)
    weight = packing.Blocks(
        values.contiguous(), columns.contiguous(), offsets.contiguous(), order.contiguous()
    )
    problem = Problem(
        rows_of(input),
        weight,
        None if bias is None else bias.contiguous(),
        rows_of(output),
        activation,
        None if residual is None else rows_of(residual),
    )
    tuning.solve((KERNEL,), problem)
    return output


def _shape(
    input: Tensor,
    values: Tensor,
    columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], order.shape[0] * values.shape[-1]))


register(
    "block_sparse_linear(Tensor input, Tensor values, Tensor columns, Tensor offsets, Tensor order, "
    "Tensor? bias, Tensor? residual, str activation) -> Tensor",
    _compute,
    reference.block_sparse_linear,
    _shape,
)
