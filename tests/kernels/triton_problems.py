"""Problems for the Triton kernels, for the programs beside this file: small with numbers, large without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leanmark_kernels.triton import block_sparse, conv2d, depthwise, gemm, packing, quantize, weight_only
from leanmark_kernels.triton.kernel import Kernel
from leanmark_kernels.triton.windows import Problem, Window

FLOAT_GEMM, INT8_GEMM = gemm.kernels(torch.float16), gemm.kernels(torch.int8)


@dataclass(frozen=True, slots=True)
class Example:
    """``kernels`` are those that may solve ``problem``."""

    name: str
    kernels: tuple[Kernel, ...]
    problem: Any


def on_meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def lean() -> Iterator[Example]:
    """Without a residual there is room for more stages, or for two programs."""
    size = on_meta(4096, 4096)
    product = gemm.Product(size, size, size, bias=on_meta(4096), activation="gelu")
    yield Example("bf16 lean", FLOAT_GEMM[:1], product)
    integers, scale = on_meta(4096, 4096, dtype=torch.int8), on_meta(4096, dtype=torch.float32)
    product = gemm.Product(integers, integers, size, bias=on_meta(4096), row_scale=scale, column_scale=scale)
    yield Example("int8 lean", INT8_GEMM[:1], product)


def large() -> Iterator[Example]:
    """Sizes of real layers, aligned, with the dearest epilogue: what the kernels are compiled ahead for."""
    wide = 4096
    for rows in (4096, 256, 64, 16):
        operands = on_meta(rows, wide), on_meta(wide, wide), on_meta(rows, wide)
        bias, residual = on_meta(wide), on_meta(rows, wide)
        product = gemm.Product(*operands, bias=bias, residual=residual, activation="gelu")
        yield Example("bf16", FLOAT_GEMM, product)
        product = gemm.Product(
            on_meta(rows, wide, dtype=torch.int8),
            on_meta(wide, wide, dtype=torch.int8),
            on_meta(rows, wide),
            bias=bias,
            residual=residual,
            row_scale=on_meta(rows, dtype=torch.float32),
            column_scale=on_meta(wide, dtype=torch.float32),
            activation="gelu",
        )
        yield Example("int8", INT8_GEMM, product)
    yield from lean()
    for rows in (1, 16, 32, 64, 4096):
        for bits, dtype in ((8, torch.int8), (4, torch.uint8)):
            packed = on_meta(wide // 128, wide, 16 * bits, dtype=dtype)
            scale, bias = on_meta(wide // 128, wide, dtype=torch.float32), on_meta(wide)
            problem = weight_only.Problem(
                on_meta(rows, wide),
                packed,
                scale,
                bias,
                on_meta(rows, wide),
                128,
                "silu",
                on_meta(rows, wide),
            )
            yield Example(f"w{bits}", (weight_only.FEW, weight_only.TILES), problem)
    wide_rows = on_meta(64, wide), on_meta(64, wide, dtype=torch.int8), on_meta(64, dtype=torch.float32)
    yield Example("rows", (quantize.KERNEL,), quantize.Problem(*wide_rows))
    for size in packing.BLOCKS:
        lines, kept = wide // size, (wide // size) ** 2 // 4
        indices = (on_meta(length, dtype=torch.int32) for length in (kept, lines + 1, lines))
        blocks = packing.Blocks(on_meta(kept, size, size), *indices)
        sparse = block_sparse.Problem(
            on_meta(4096, wide), blocks, on_meta(wide), on_meta(4096, wide), "gelu", on_meta(4096, wide)
        )
        yield Example(f"blocks {size}", (block_sparse.KERNEL,), sparse)
    image, pixels = on_meta(64, 56, 56, 256), on_meta(64 * 56 * 56, 256)
    rest = on_meta(256), pixels, pixels, Window(1, 1, 1), "relu"
    yield Example("3x3", (conv2d.KERNEL,), Problem(image, on_meta(256, 3, 3, 256), *rest))
    yield Example("3x3", (depthwise.KERNEL,), Problem(image, on_meta(3, 3, 256), *rest))
