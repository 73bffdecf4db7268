"""What scripts/gpu_kernels.py shows: each kernel on sizes of real layers, beside what libraries offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product, zip_longest

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels import triton as kernels
from leanmark_kernels.integer_packing import quantize_channels
from leanmark_kernels.triton import packing

OURS = "ours"
DTYPE = torch.bfloat16

EPILOGUES = {"plain": 0.88, "gelu": 1.05, "residual": 1.05}
"""Of a dense product, and the target of each: bias comes with all but the first."""


@dataclass(frozen=True, slots=True)
class Contest:
    """``calls`` do the same job, ``ours`` first; ``exact`` is what ours has to give, in float64.

    ``bytes`` is what has to be read and written at least, ``operations`` what has to be multiplied and added,
    ``unit`` what multiplies: the tensor cores in a dtype, or for ``float32`` the others.
    """

    calls: Mapping[str, Callable[[], Tensor]]
    exact: Callable[[], Tensor]
    bytes: int
    operations: int
    unit: str = "bfloat16"


@dataclass(frozen=True, slots=True)
class Case:
    """``target`` is the ratio to the first library that is asked for; ``build`` makes it on a device."""

    name: str
    target: float
    build: Callable[[torch.device], Contest]


def cases(large: bool = True) -> Iterator[Case]:
    """All of them, or one small one of each kernel; in turns, the most telling of each kernel first."""
    families = _large() if large else _small()
    for turn in zip_longest(*(list(family) for family in families)):
        yield from (case for case in turn if case is not None)


def _large() -> Iterator[Iterator[Case]]:
    """By kernel."""
    for bits, target in ((4, 1.8), (8, 1.5)):
        yield (
            Case(f"w{bits}a16-{rows}x{size}x{size}", target, partial(weight_only, bits, rows, size))
            for size, rows in product((8192, 4096), (1, 16, 32))
        )
    for epilogue, target in EPILOGUES.items():
        yield (
            Case(f"gemm-{epilogue}-{size}", target, partial(dense, size, size, size, epilogue))
            for size in (8192, 4096)
        )
    yield (
        Case(f"gemm-small-{m}x{n}x{k}", 1.1, partial(dense, m, n, k, "plain"))
        for m, n, k in ((16, 4096, 4096), (64, 1024, 4096), (256, 2048, 2048), (100, 1000, 1000))
    )
    yield (
        Case(
            f"depthwise-{taps}x{taps}-{channels}-at-{size}", 2.0, partial(depthwise, 64, channels, size, taps)
        )
        for (channels, size), taps in product(((384, 28), (128, 112), (96, 56)), (3, 7))
    )
    for block in packing.BLOCKS:
        yield (
            Case(
                f"blocks{block}-keeping-{kept}-percent",
                target,
                partial(block_sparse, 4096, block, kept / 100),
            )
            for kept, target in ((25, 2.8), (50, 1.5), (10, 6.0))
        )
    yield (Case(f"int8-{rows}x4096x4096", 1.15, partial(integer, rows, 4096)) for rows in (4096, 1024))
    yield (
        Case(f"conv3x3-{channels}-at-{size}", 1.0, partial(convolution, 64, channels, size))
        for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
    )


def _small() -> Iterator[Iterator[Case]]:
    """To rehearse on a processor."""
    for name, build in (
        ("w4a16-3x256x256", partial(weight_only, 4, 3, 256)),
        ("gemm-gelu-20x40x64", partial(dense, 20, 40, 64, "gelu")),
        ("depthwise-3x3-16-at-6", partial(depthwise, 2, 16, 6, 3)),
        ("blocks64-keeping-50-percent", partial(block_sparse, 256, 64, 0.5)),
        ("int8-32x64x64", partial(integer, 32, 64)),
        ("conv3x3-16-at-6", partial(convolution, 1, 16, 6)),
    ):
        yield iter([Case(name, 1.0, build)])


def normal(device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, device=device).to(DTYPE)


def stored_bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def weight_only(bits: int, rows: int, size: int, device: torch.device) -> Contest:
    input, weight = normal(device, rows, size), normal(device, size, size)
    packed, scale = kernels.pack_weight_only(weight, bits, 128)
    stored = packing.unpack_weight_only(packed, scale, 128, size)
    return Contest(
        {
            OURS: lambda: kernels.weight_only_linear(input, packed, scale, group_size=128),
            "cuBLAS bf16": lambda: F.linear(input, weight),
        },
        lambda: F.linear(input.double(), stored.double()),
        stored_bytes(input, packed, scale, input),
        2 * rows * size * size,
    )


def dense(rows: int, columns: int, depth: int, epilogue: str, device: torch.device) -> Contest:
    """Plain against cuBLAS alone, with an epilogue against the chain of kernels that eager torch runs."""
    input, weight = normal(device, rows, depth), normal(device, columns, depth) / depth**0.5
    bias = None if epilogue == "plain" else normal(device, columns)
    residual = normal(device, rows, columns) if epilogue == "residual" else None
    activation = "gelu" if epilogue == "gelu" else "none"

    def chain() -> Tensor:
        output = F.linear(input, weight, bias)
        if residual is not None:
            output = output + residual
        return F.gelu(output) if activation == "gelu" else output

    def exact() -> Tensor:
        output = F.linear(input.double(), weight.double(), None if bias is None else bias.double())
        if residual is not None:
            output += residual
        return F.gelu(output) if activation == "gelu" else output

    given = [tensor for tensor in (input, weight, bias, residual) if tensor is not None]
    return Contest(
        {
            OURS: lambda: kernels.fused_linear(input, weight, bias, residual, activation=activation),
            "cuBLAS" if epilogue == "plain" else "cuBLAS and eager": chain,
        },
        exact,
        stored_bytes(*given) + rows * columns * DTYPE.itemsize,
        2 * rows * columns * depth,
    )


def integer(rows: int, size: int, device: torch.device) -> Contest:
    """Against torch's int8 product and the epilogue that eager torch runs after it."""
    (input, input_scale), (weight, weight_scale) = (
        quantize_channels(torch.randn(length, size, device=device)) for length in (rows, size)
    )
    bias, transposed = normal(device, size), weight.t()
    reference = normal(device, rows, size), normal(device, size, size)

    def chain() -> Tensor:
        sums = torch._int_mm(input, transposed)
        return (sums * input_scale[:, None] * weight_scale + bias).to(DTYPE)

    def exact() -> Tensor:
        product = F.linear(input.double(), weight.double())
        return product * input_scale[:, None].double() * weight_scale.double() + bias.double()

    return Contest(
        {
            OURS: lambda: kernels.int8_linear(input, weight, input_scale, weight_scale, bias, dtype=DTYPE),
            "torch._int_mm and eager": chain,
            "cuBLAS bf16": lambda: F.linear(*reference, bias),
        },
        exact,
        stored_bytes(input, weight, input_scale, weight_scale, bias) + rows * size * DTYPE.itemsize,
        2 * rows * size * size,
        "int8",
    )


def block_sparse(size: int, block: int, kept: float, device: torch.device) -> Contest:
    """``kept`` of the blocks at random, against a dense product with the same weight."""
    input = normal(device, size, size)
    keep = torch.rand(size // block, size // block, device=device) < kept
    mask = keep.repeat_interleave(block, 0).repeat_interleave(block, 1)
    weight = normal(device, size, size) / size**0.5 * mask
    blocks = kernels.pack_blocks(weight, block)
    return Contest(
        {
            OURS: lambda: kernels.block_sparse_linear(input, blocks),
            "cuBLAS dense": lambda: F.linear(input, weight),
        },
        lambda: F.linear(input.double(), weight.double()),
        stored_bytes(input, blocks.values, input),
        2 * size * blocks.values.numel(),
    )


def convolution(batch: int, channels: int, size: int, device: torch.device) -> Contest:
    """3x3 with bias, residual and ReLU, against cuDNN's choice in channels_last and eager torch after it."""
    last = torch.channels_last
    input = normal(device, batch, channels, size, size).contiguous(memory_format=last)
    weight = normal(device, channels, channels, 3, 3).contiguous(memory_format=last) / (9 * channels) ** 0.5
    bias, residual = normal(device, channels), torch.randn_like(input)  # channels_last too

    def exact() -> Tensor:
        # contiguous: libraries have float64 in few layouts
        planes, filters = (tensor.double().contiguous() for tensor in (input, weight))
        return (F.conv2d(planes, filters, bias.double(), padding=1) + residual).relu()

    return Contest(
        {
            OURS: lambda: kernels.fused_conv2d(input, weight, bias, residual, padding=1, activation="relu"),
            "cuDNN and eager": lambda: F.conv2d(input, weight, bias, padding=1).add_(residual).relu_(),
            "cuDNN alone": lambda: F.conv2d(input, weight, None, padding=1),
        },
        exact,
        stored_bytes(input, weight, bias, residual, residual),
        2 * residual.numel() * 9 * channels,
    )


def depthwise(batch: int, channels: int, size: int, taps: int, device: torch.device) -> Contest:
    input = normal(device, batch, channels, size, size).contiguous(memory_format=torch.channels_last)
    weight, bias = normal(device, channels, 1, taps, taps), normal(device, channels)
    padding = taps // 2

    def library() -> Tensor:
        return F.conv2d(input, weight, bias, padding=padding, groups=channels)

    def exact() -> Tensor:
        convolved = (
            F.conv2d(image[None].double(), weight.double(), bias.double(), padding=padding, groups=channels)
            for image in input  # one by one, for memory's sake
        )
        return torch.cat(list(convolved))

    return Contest(
        {OURS: lambda: kernels.depthwise_conv2d(input, weight, bias, padding=padding), "cuDNN": library},
        exact,
        stored_bytes(input, weight, bias, input),
        2 * input.numel() * taps**2,
        "float32",
    )
