"""Runs every configuration of every Triton kernel in the interpreter, on shapes with tails, against float64.

Prints one JSON line for each: its name, and the largest error as a share of the bound. All memory that torch
hands out is poisoned with NaN first, so that an output that is not written shows. ``TRITON_INTERPRET=1`` has
to be set. Bfloat16 is left out: the interpreter gets its products wrong (triton issue 11584).

The bound of an element is a unit of the last place of the dtype, for rounding the result, and the rounding of
a float32 sum of K products, which grows with its root: 2^-24 (8 + 2 sqrt(K)) |input| |weight|, the latter
times 1.2, the steepest slope of the activations.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from triton_problems import FLOAT_GEMM, INT8_GEMM, Example

from leanmark_kernels.integer_packing import quantize_channels
from leanmark_kernels.triton import block_sparse, conv2d, depthwise, device_limits, gemm, packing, weight_only
from leanmark_kernels.triton.kernel import Kernel
from leanmark_kernels.triton.reference import finish
from leanmark_kernels.triton.tuning import Candidate, candidates, run
from leanmark_kernels.triton.windows import Problem, Window, nhwc

LIMITS = device_limits.Limits((9, 0), device_limits.SHARED_BYTES[9, 0], 4)
SMALLEST = {torch.float16: 2.0**-24, torch.float32: 0.0}
SLOPE = 1.2

Exact = Callable[[], tuple[Tensor, Tensor, int]]
"""Gives the float64 result, the sum of the magnitudes that make it, and how many products are in it."""


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(1)
    assert torch.empty(100).isnan().all(), "memory is not poisoned"
    for dtype in (torch.float16, torch.float32):
        sources = (dense, integer, few_rows, sparse, convolution, channelwise)
        for example, exact in itertools.chain.from_iterable(source(dtype) for source in sources):
            check(example, exact, dtype)


def check(example: Example, exact: Exact, dtype: torch.dtype) -> None:
    """Solve ``example`` in every legal way and print how far each is off."""
    expected, magnitude, products = exact()
    bound = SLOPE * 2.0**-24 * (8 + 2 * products**0.5) * magnitude
    bound += torch.finfo(dtype).eps * expected.abs() + SMALLEST[dtype]
    output: Tensor = example.problem.output
    ways = candidates(example.kernels, example.problem, LIMITS)
    for candidate in ways if dtype == torch.float16 else first_of_each(ways):
        output.fill_(torch.nan)
        run(candidate.launches(example.problem, LIMITS))
        share = ((output.double() - expected.reshape(output.shape)).abs() / bound.reshape(output.shape)).max()
        name = f"{example.name} {str(dtype)[6:]}: {candidate}"
        print(json.dumps({"name": name, "kernel": candidate.kernel.name, "share": share.item()}))


def first_of_each(ways: list[Candidate]) -> list[Candidate]:
    """One way for each kernel: what configurations change does not depend on the dtype."""
    return list({way.kernel.name: way for way in reversed(ways)}.values())


def epilogue(dtype: torch.dtype, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    return torch.randn(columns).to(dtype), torch.randn(rows, columns).to(dtype)


def exactly(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Exact:
    def compute() -> tuple[Tensor, Tensor, int]:
        x, w = input.double(), weight.double()
        size = x.abs() @ w.abs().T
        for added in (bias, residual):
            if added is not None:
                size = size + added.double().abs()
        return finish(x @ w.T, bias, residual, activation), size, x.shape[1]

    return compute


def dense(dtype: torch.dtype) -> Iterator[tuple[Example, Exact]]:
    for rows, columns, depth, activation in (
        (67, 40, 136, "gelu"),
        (9, 45, 77, "relu"),
        (3, 24, 300, "none"),
    ):
        input, weight = torch.randn(rows, depth).to(dtype), torch.randn(columns, depth).to(dtype)
        bias, residual = epilogue(dtype, rows, columns)
        problem = gemm.Product(
            input, weight, residual.clone(), bias=bias, residual=residual, activation=activation
        )
        name = f"dense {rows}x{columns}x{depth}"
        yield Example(name, FLOAT_GEMM, problem), exactly(input, weight, bias, residual, activation)


def integer(dtype: torch.dtype) -> Iterator[tuple[Example, Exact]]:
    for rows, columns, depth in ((70, 48, 160), (5, 19, 333)):
        (input, row_scale), (weight, column_scale) = (
            quantize_channels(torch.randn(size, depth)) for size in (rows, columns)
        )
        bias, residual = epilogue(dtype, rows, columns)
        problem = gemm.Product(
            input,
            weight,
            residual.clone(),
            bias=bias,
            residual=residual,
            row_scale=row_scale,
            column_scale=column_scale,
            activation="silu",
        )
        scaled = (
            input.double() * row_scale[:, None].double(),
            weight.double() * column_scale[:, None].double(),
        )
        yield (
            Example(f"int8 {rows}x{columns}x{depth}", INT8_GEMM, problem),
            exactly(*scaled, bias, residual, "silu"),
        )


def few_rows(dtype: torch.dtype) -> Iterator[tuple[Example, Exact]]:
    shapes = ((1, 37, 1100), (9, 64, 560), (20, 37, 256), (40, 70, 128), (70, 33, 300), (130, 140, 200))
    for (rows, columns, depth), bits, group in itertools.product(shapes, (8, 4), (256,)):
        packed, scale = packing.pack_weight_only(torch.randn(columns, depth), bits, group)
        stored = packing.unpack_weight_only(packed, scale, group, depth)
        input = torch.randn(rows, depth).to(dtype)
        bias, residual = epilogue(dtype, rows, columns)
        output = residual.clone()
        problem = weight_only.Problem(input, packed, scale, bias, output, group, "gelu", residual)
        kernels = (weight_only.FEW, weight_only.TILES)
        name = f"w{bits} {rows}x{columns}x{depth}"
        yield Example(name, kernels, problem), exactly(input, stored, bias, residual, "gelu")


def sparse(dtype: torch.dtype) -> Iterator[tuple[Example, Exact]]:
    block_sparse.GROUP_ROWS = 256  # of few rows, too, there is more than one group
    for size, rows in ((64, 70), (128, 300), (64, 3)):
        weight = torch.randn(3 * size, 4 * size).to(dtype)
        keep = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
        weight *= keep.repeat_interleave(size, 0).repeat_interleave(size, 1)
        input = torch.randn(rows, 4 * size).to(dtype)
        bias, residual = epilogue(dtype, rows, 3 * size)
        blocks, output = packing.pack_blocks(weight, size), residual.clone()
        problem = block_sparse.Problem(input, blocks, bias, output, "relu", residual)
        example = Example(f"blocks {size} of {rows} rows", (block_sparse.KERNEL,), problem)
        yield example, exactly(input, weight, bias, residual, "relu")


def convolution(dtype: torch.dtype) -> Iterator[tuple[Example, Exact]]:
    cases = (
        (2, 70, 9, 7, 40, 3, Window(1, 1, 1)),
        (1, 3, 15, 14, 20, 7, Window(2, 3, 1)),
        (1, 130, 6, 5, 70, 3, Window(1, 2, 2)),
        (2, 64, 6, 6, 64, 1, Window(2, 0, 1)),
    )
    for batch, channels, height, width, filters, kernel, window in cases:
        input = torch.randn(batch, channels, height, width).to(dtype)
        weight = torch.randn(filters, channels, kernel, kernel).to(dtype)
        yield windowed(conv2d.KERNEL, input, weight, nhwc(weight), window, 1)


def channelwise(dtype: torch.dtype) -> Iterator[tuple[Example, Exact]]:
    for channels, kernel, window in (
        (70, 3, Window(1, 1, 1)),
        (33, 5, Window(2, 2, 1)),
        (128, 3, Window(1, 2, 2)),
    ):
        input, weight = (
            torch.randn(2, channels, 9, 7).to(dtype),
            torch.randn(channels, 1, kernel, kernel).to(dtype),
        )
        packed = weight[:, 0].permute(1, 2, 0).contiguous()
        yield windowed(depthwise.KERNEL, input, weight, packed, window, channels)


def windowed(
    kernel: Kernel, input: Tensor, weight: Tensor, packed: Tensor, window: Window, groups: int
) -> tuple[Example, Exact]:
    shape = window.output_shape(input, weight)
    bias, residual = epilogue(input.dtype, shape[0] * shape[2] * shape[3], shape[1])
    problem = Problem(nhwc(input), packed, bias, residual, residual.clone(), window, "relu")

    def compute() -> tuple[Tensor, Tensor, int]:
        def convolve(x: Tensor, w: Tensor) -> Tensor:
            y = F.conv2d(x, w, None, window.stride, window.padding, window.dilation, groups)
            return nhwc(y).flatten(0, 2)

        size = convolve(input.double().abs(), weight.double().abs()) + bias.abs() + residual.abs()
        exact = convolve(input.double(), weight.double())
        return finish(exact, bias, residual, "relu"), size, packed[0].numel()

    name = f"{kernel.name} {list(input.shape)} {list(weight.shape)} {window}"
    return Example(name, (kernel,), problem), compute


if __name__ == "__main__":
    main()
