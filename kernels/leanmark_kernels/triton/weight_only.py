"""Linear layers on 8- and 4-bit weights with 16-bit activations (W8A16, W4A16), mostly for few rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.triton import packing, reference, split_k, tuning
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


def weight_only_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    group_size: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ w.T + bias + residual)`` where w is stored in 8 or 4 bits; for inference.

    ``input`` is [*, K] of float16, bfloat16 or float32; ``weight`` and ``scale`` are what
    :func:`leanmark_kernels.triton.packing.pack_weight_only` made of w [N, K] with the same ``group_size``:
    int8 [units, N, 128] or uint8 [units, N, 64], and float32 [groups, N]; ``bias`` is [N] and ``residual``
    [*, N], of the dtype of the input.

    Returns [*, N]. The fewer rows, the more is gained; with many, converting the weights again for each tile
    of rows costs what reading fewer bytes saves.

    Numerics: the stored integers are exact in every input dtype and products are added up in float32, so the
    error against the stored weights is half a unit of the last place of the result plus about
    sqrt(K) 6e-8 |input| |w|; what rounding to 8 or 4 bits costs comes on top.

    Raises ``TypeError`` for dtypes, ``ValueError`` for shapes, group size, devices or an activation that do
    not fit, on a GPU also for more than 64 x 65535 rows, from compute capability 9.0 on and of 16 bits
    128 x 65535. The backward pass raises ``NotImplementedError``.
    """
    require_floating("weight_only_linear", input, bias=bias, residual=residual)
    require_dtype("weight_only_linear", torch.float32, scale=scale)
    require_dtype("weight_only_linear", torch.int8, torch.uint8, weight=weight)
    require_activation("weight_only_linear", activation)
    packing.require_group_size("weight_only_linear", group_size)
    _check_shapes(input, weight, scale, group_size)
    require_vector("weight_only_linear", weight.shape[1], bias=bias)
    require_shape("weight_only_linear", "residual", residual, *input.shape[:-1], weight.shape[1])
    require_device("weight_only_linear", input, weight=weight, scale=scale, bias=bias, residual=residual)
    output: Tensor = torch.ops.leanmark_kernels.weight_only_linear.default(
        input, weight, scale, bias, residual, group_size, activation
    )
    return for_inference("weight_only_linear", output)


def _check_shapes(input: Tensor, weight: Tensor, scale: Tensor, group_size: int) -> None:
    width = packing.UNIT if weight.dtype == torch.int8 else packing.UNIT // 2
    if weight.dim() != 3 or weight.shape[2] != width:
        raise ValueError(
            f"weight_only_linear: weight is {weight.dtype} {list(weight.shape)}; it must be "
            f"[units, N, {width}], as pack_weight_only makes it"
        )
    units, columns, _ = weight.shape
    if input.dim() < 1 or pieces(input.shape[-1], packing.UNIT) != units:
        raise ValueError(
            f"weight_only_linear: input is {list(input.shape)}; it must be [*, K] with K from "
            f"{(units - 1) * packing.UNIT + 1} to {units * packing.UNIT}, "
            f"since weight is {list(weight.shape)}"
        )
    groups = pieces(units * packing.UNIT, group_size)
    require_shape("weight_only_linear", "scale", scale, groups, columns)


MOST_ROW_BLOCKS = 65535
"""Largest z dimension of a grid (CUDA C++ programming guide, 'technical specifications')."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """``output`` [M, N] is to be ``activation(input [M, K] @ w.T + bias + residual)``; all are contiguous."""

    input: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    output: Tensor
    group_size: int
    activation: str
    residual: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """M, N and K."""
        return self.input.shape[0], self.weight.shape[1], self.input.shape[1]

    @property
    def bits(self) -> int:
        return 8 if self.weight.dtype == torch.int8 else 4


def _key(problem: Problem) -> str:
    m, n, k = problem.sizes
    return (
        f"weight_only int{problem.bits} {dtype_name(problem.input)} M={rows_bucket(m)} N={n} K={k} "
        f"group={min(problem.group_size, k)}"
    )


def _why_not(problem: Problem, config: Config, limits: Limits) -> str | None:
    m, n, k = problem.sizes
    tallest = min(max(rows_bucket(m), 16), 128)
    if not min(tallest, 64) <= config["BLOCK_M"] <= tallest:
        return f"tiles of {config['BLOCK_M']} rows for {m}"
    outputs = config["BLOCK_M"] * config["BLOCK_N"]
    if problem.input.dtype == torch.float32 and (config["BLOCK_N"] > 64 or outputs > 64 * 64):
        return "float32 products do not run on tensor cores, and so many spill"
    if outputs > 32 * 32 * config.warps and not limits.descriptors:
        return "more than 32 sums per thread, which spill below compute capability 9.0"
    tensor_memory = limits.capability >= (10, 0) and problem.input.itemsize == 2
    if config["BLOCK_M"] == 16 and config["BLOCK_N"] < 256 and tensor_memory:
        return "small tiles of 16 rows spill from compute capability 10.0 on"
    row_blocks = pieces(m, config["BLOCK_M"])
    if row_blocks > MOST_ROW_BLOCKS:
        return f"{row_blocks} blocks of {config['BLOCK_M']} rows; a grid has at most {MOST_ROW_BLOCKS}"
    blocks = row_blocks * pieces(n, config["BLOCK_N"])
    if config["SPLIT_K"] > 1 and blocks >= 4 * limits.multiprocessors:
        return f"{blocks} blocks keep {limits.multiprocessors} multiprocessors busy without splitting K"
    if config["SPLIT_K"] > pieces(k, packing.UNIT):
        return f"K has fewer than {config['SPLIT_K']} units of {packing.UNIT}"
    return why_shared(config["STAGES"], _stage_bytes(problem, config), limits)


def _stage_bytes(problem: Problem, config: Config) -> int:
    """Of one unit: the weights, their scales, and the input."""
    weights = config["BLOCK_N"] * (packing.UNIT * problem.bits // 8 + problem.scale.itemsize)
    return weights + config["BLOCK_M"] * packing.UNIT * problem.input.itemsize


def _launches(problem: Problem, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.weight_only import weight_only

    m, n, k = problem.sizes
    parts = config["SPLIT_K"]
    grid = (pieces(n, config["BLOCK_N"]), parts, pieces(m, config["BLOCK_M"]))
    constants = {
        **_constants(problem),
        "EVEN_K": k % packing.UNIT == 0,
        "PARTIAL": parts > 1,
        "FOLLOWED": parts > 1 and split_k.overlaps(problem.output, limits),
    }
    if parts == 1:
        return [Launch(weight_only, grid, _arguments(problem, problem.output), constants, config)]
    partial = split_k.partial_sums(problem.output, parts, torch.float32)
    arguments = {**_arguments(problem, partial), "bias": None, "residual": None}
    epilogue = {
        "row_scale": None, "column_scale": None, "bias": problem.bias, "residual": problem.residual
    }  # fmt: skip
    return [
        Launch(weight_only, grid, arguments, constants, config),
        split_k.combine(partial, problem.output, epilogue, problem.activation, limits),
    ]


def _arguments(problem: Problem, output: Tensor) -> dict[str, Tensor | int | None]:
    m, n, k = problem.sizes
    return {
        "input": problem.input,
        "weight": problem.weight.view(torch.int32),
        "scale": problem.scale,
        "bias": problem.bias,
        "residual": problem.residual,
        "output": output,
        "M": m,
        "N": n,
        "K": k,
    }


def _constants(problem: Problem) -> dict[str, str | int]:
    # A scale for the whole of K is the group of unit 0 for every unit, however many there are.
    return {
        "ACTIVATION": problem.activation,
        "BITS": problem.bits,
        "GROUP": problem.group_size // packing.UNIT,
    }


def _few_why_not(problem: Problem, config: Config, limits: Limits) -> str | None:
    m = problem.sizes[0]
    if config["BLOCK_M"] != max(rows_bucket(m), 8):
        return f"tiles of {config['BLOCK_M']} rows for {m}"
    if problem.input.dtype == torch.float32 and config["BLOCK_N"] > 16:
        return "float32 products do not run on tensor cores, and so many spill"
    return why_shared(config["STAGES"], config["UNITS"] * _stage_bytes(problem, config), limits)


def _few_launches(problem: Problem, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.weight_only import weight_only_few

    m, n, _ = problem.sizes
    grid = (pieces(n, config["BLOCK_N"]), pieces(m, config["BLOCK_M"]))
    return [Launch(weight_only_few, grid, _arguments(problem, problem.output), _constants(problem), config)]


_TILES = [
    # BLOCK_M, BLOCK_N, SPLIT_K, stages, warps
    *((16, 64, parts, 5, 4) for parts in (1, 2, 4)),
    *((16, 128, parts, 5, 4) for parts in (1, 2, 4, 8)),
    *((16, 256, parts, 4, 8) for parts in (4, 8)),
    (32, 64, 1, 4, 4),
    *((32, 128, parts, 4, 4) for parts in (1, 2, 4)),
    *((32, 256, parts, 4, 8) for parts in (4, 8)),
    (64, 64, 1, 4, 4),
    *((64, 128, parts, 3, 8) for parts in (1, 4)),
    (128, 64, 1, 3, 4),
    (128, 128, 1, 3, 8),
]
"""Wide tiles read the input less often: at 32 rows and 64 columns it is twice the bytes of 4-bit weights."""

TILES = Kernel(
    "weight_only",
    tuple(
        config(warps, 1, BLOCK_M=m, BLOCK_N=n, SPLIT_K=parts, STAGES=stages)
        for m, n, parts, stages, warps in _TILES
    ),
    _why_not,
    _launches,
    _key,
)
FEW = Kernel(
    "weight_only_few",
    tuple(
        config(units, 1, BLOCK_M=m, BLOCK_N=n, UNITS=units, STAGES=stages)
        for m, n, units, stages in (
            (8, 32, 8, 3),
            (8, 32, 4, 4),
            (8, 16, 8, 4),
            (8, 16, 4, 5),
            (8, 64, 4, 3),
            (16, 32, 8, 3),
            (16, 32, 4, 4),
        )
    ),
    _few_why_not,
    _few_launches,
    _key,
)


def _compute(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    group_size: int,
    activation: str,
) -> Tensor:
    output = _shape(input, weight, scale, bias, residual, group_size, activation)
    problem = Problem(
        rows_of(input),
        weight.contiguous(),
        scale.contiguous(),
        None if bias is None else bias.contiguous(),
        rows_of(output),
        group_size,
        activation,
        None if residual is None else rows_of(residual),
    )
    tuning.solve((FEW, TILES), problem)
    return output


def _shape(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    group_size: int,
    activation: str,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[1]))


register(
    "weight_only_linear(Tensor input, Tensor weight, Tensor scale, Tensor? bias, Tensor? residual, "
    "int group_size, str activation) -> Tensor",
    _compute,
    reference.weight_only_linear,
    _shape,
)
