"""The product of two dense matrices with a fused epilogue: its problem, its two kernels and their spaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leanmark_kernels.triton import split_k
from leanmark_kernels.triton.configuration import Config, Launch, config, pieces
from leanmark_kernels.triton.device_limits import Limits
from leanmark_kernels.triton.kernel import Kernel, dtype_name, rows_bucket, why_shared

GROUP_M = 8
ACCUMULATORS = 64
"""Per thread, at most, that one epilogue can hold beside bias, residual and addresses in 255 registers."""


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """``output = activation(input @ weight.T * row_scale * column_scale + bias + residual)``.

    ``input`` [M, K], ``weight`` [N, K] and ``output`` [M, N] are contiguous; scales come with int8 only.
    """

    input: Tensor
    weight: Tensor
    output: Tensor
    bias: Tensor | None = None
    residual: Tensor | None = None
    row_scale: Tensor | None = None
    column_scale: Tensor | None = None
    activation: str = "none"

    @property
    def sizes(self) -> tuple[int, int, int]:
        """M, N and K."""
        return self.input.shape[0], self.weight.shape[0], self.input.shape[1]

    @property
    def epilogue(self) -> dict[str, Tensor | None]:
        return {
            "row_scale": self.row_scale,
            "column_scale": self.column_scale,
            "bias": self.bias,
            "residual": self.residual,
        }


def key(problem: Product) -> str:
    m, n, k = problem.sizes
    extra = "".join(f" {name}" for name, tensor in problem.epilogue.items() if tensor is not None)
    dtypes = f"{dtype_name(problem.input)} {dtype_name(problem.output)}"
    return f"gemm {dtypes} M={rows_bucket(m)} N={n} K={k} {problem.activation}{extra}"


def _why_tile(
    problem: Product, config: Config, limits: Limits, subtiles: int = 1, store_bytes: int = 0
) -> str | None:
    m, n, k = config["BLOCK_M"], config["BLOCK_N"], config["BLOCK_K"]
    if m > max(16, rows_bucket(problem.sizes[0])):
        return f"tiles of {m} rows for {problem.sizes[0]}"
    if m * n > ACCUMULATORS * subtiles * config.warps * 32:
        return f"an epilogue of more than {ACCUMULATORS} accumulators per thread, which spills"
    return why_shared(config.stages, (m + n) * k * problem.input.dtype.itemsize, limits, store_bytes)


def _why_not(problem: Product, config: Config, limits: Limits) -> str | None:
    m, n, _ = problem.sizes
    tiles = pieces(m, config["BLOCK_M"]) * pieces(n, config["BLOCK_N"])
    if config["SPLIT_K"] > 1 and tiles >= limits.multiprocessors:
        return f"{tiles} tiles keep {limits.multiprocessors} multiprocessors busy without splitting K"
    return _why_tile(problem, config, limits)


def _launches(problem: Product, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.gemm import gemm

    m, n, k = problem.sizes
    parts = config["SPLIT_K"]
    tiles = pieces(m, config["BLOCK_M"]) * pieces(n, config["BLOCK_N"])
    sizes = {"M": m, "N": n, "K": k}
    constants = {
        "ACTIVATION": problem.activation,
        "EVEN_K": k % config["BLOCK_K"] == 0,
        "PARTIAL": parts > 1,
        "GROUP_M": GROUP_M,
    }
    operands = {"input": problem.input, "weight": problem.weight}
    if parts == 1:
        arguments = {**operands, **problem.epilogue, "output": problem.output, **sizes}
        return [Launch(gemm, (tiles, 1), arguments, constants, config)]
    dtype = torch.int32 if problem.input.dtype == torch.int8 else torch.float32
    partial = split_k.partial_sums(problem.output, parts, dtype)
    arguments = {**operands, **dict.fromkeys(problem.epilogue), "output": partial, **sizes}
    return [
        Launch(gemm, (tiles, parts), arguments, constants, config),
        split_k.combine(partial, problem.output, problem.epilogue, problem.activation, limits),
    ]


def _why_not_descriptors(problem: Product, config: Config, limits: Limits) -> str | None:
    if not limits.descriptors:
        return "tensor descriptors need compute capability 9.0"
    if problem.sizes[2] == 0:
        return "a descriptor cannot be of an empty tensor"
    if problem.input.dtype == torch.float32:
        return "float32 products do not run on tensor cores"
    for name in ("input", "weight", "output"):
        tensor: Tensor = getattr(problem, name)
        if tensor.shape[1] * tensor.itemsize % 16 != 0 or tensor.data_ptr() % 16 != 0:
            return f"rows of {name} do not begin at multiples of 16 bytes"
    # What is stored at a time has room of its own, and a residual as much again, to change hands in.
    stored = config["BLOCK_M"] * config["BLOCK_N"] // config["SUBTILES"] * problem.output.itemsize
    room = stored if problem.residual is None else 2 * stored
    return _why_tile(problem, config, limits.shared_by(config["PER_SM"]), config["SUBTILES"], room)


def _launches_descriptors(problem: Product, config: Config, limits: Limits) -> Sequence[Launch]:
    from triton.tools.tensor_descriptor import TensorDescriptor

    from leanmark_kernels.triton.device.descriptor_gemm import descriptor_gemm

    m, n, k = problem.sizes
    block_m, block_n, block_k = (config[f"BLOCK_{axis}"] for axis in "MNK")

    def descriptor(tensor: Tensor, *block: int) -> Any:
        return TensorDescriptor.from_tensor(tensor, list(block))

    arguments = {
        "input": descriptor(problem.input, block_m, block_k),
        "weight": descriptor(problem.weight, block_n, block_k),
        **problem.epilogue,
        "output": descriptor(problem.output, block_m, block_n // config["SUBTILES"]),
        "M": m,
        "N": n,
        "K": k,
    }
    tiles = pieces(m, block_m) * pieces(n, block_n)
    constants = {"ACTIVATION": problem.activation, "GROUP_M": GROUP_M}
    grid = (min(tiles, limits.multiprocessors * config["PER_SM"]),)
    return [Launch(descriptor_gemm, grid, arguments, constants, config)]


def _pointer_space(depth: int) -> tuple[Config, ...]:
    """``depth`` is BLOCK_K of the large tiles; those of few rows go deeper, to have more bytes under way."""
    large = [(128, 128, 8, 3, 1, 2)]
    large += [(64, 128, 4, 4, parts, 1) for parts in (1, 2, 4)]
    large += [(64, 64, 4, 4, parts, 1) for parts in (1, 4, 8)]
    small = [(16, 64, 2, 1), (16, 64, 2, 4), (16, 64, 2, 8), (16, 32, 4, 1), (32, 64, 2, 2), (32, 64, 2, 4)]
    return (
        *(
            config(warps, stages, BLOCK_M=m, BLOCK_N=n, BLOCK_K=depth, SPLIT_K=parts, SUBTILES=subtiles)
            for m, n, warps, stages, parts, subtiles in large
        ),
        *(
            config(4, 4, BLOCK_M=m, BLOCK_N=n, BLOCK_K=deeper * depth, SPLIT_K=parts, SUBTILES=1)
            for m, n, deeper, parts in small
        ),
    )


def _descriptor_space(depth: int) -> tuple[Config, ...]:
    """Where two programs share a multiprocessor, one multiplies while the other finishes a tile.

    A tile of 128 x 256 reads and writes 128 bytes of shared memory per cycle, which is all there is; smaller
    ones need more, and have their place where tiles are few or the epilogue is long.
    """
    tiles = [
        (128, 256, 8, 4, 2, 1),
        (128, 256, 8, 3, 2, 1),
        (128, 128, 8, 4, 1, 1),
        (128, 128, 4, 3, 2, 2),
        (64, 128, 4, 4, 1, 2),
        (64, 128, 4, 3, 1, 2),
        (64, 64, 4, 5, 1, 2),
    ]
    return tuple(
        config(warps, stages, BLOCK_M=m, BLOCK_N=n, BLOCK_K=depth, SUBTILES=subtiles, PER_SM=programs)
        for m, n, warps, stages, subtiles, programs in tiles
    )


def kernels(dtype: torch.dtype) -> tuple[Kernel, ...]:
    """The kernels for inputs of ``dtype``, the one to prefer untried first."""
    depth, name = (128, "int8_gemm") if dtype == torch.int8 else (64, "gemm")
    return (
        Kernel(
            f"descriptor_{name}", _descriptor_space(depth), _why_not_descriptors, _launches_descriptors, key
        ),
        Kernel(name, _pointer_space(depth), _why_not, _launches, key),
    )
