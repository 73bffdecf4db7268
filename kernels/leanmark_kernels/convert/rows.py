"""Everything that can stand in for a layer: one row each, libraries and our own operators alike."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from leanmark_kernels._native import instruction_set
from leanmark_kernels.activations import Activation
from leanmark_kernels.convert import libraries
from leanmark_kernels.convert.block import Block, Layer
from leanmark_kernels.convert.candidates import Candidate, Shape
from leanmark_kernels.depthwise_modules import DepthwiseConv2d
from leanmark_kernels.direct_modules import DirectConv2d
from leanmark_kernels.integer_modules import Int8Conv2d, Int8Linear, Int8WinogradConv2d, W4A8Linear
from leanmark_kernels.modules import PackedLinear, WinogradConv2d
from leanmark_kernels.pooling_modules import MaxPool2d, MeanPool2d
from leanmark_kernels.sparse_modules import SparseConv2d, SparseLinear


@dataclass(frozen=True, slots=True)
class Weights:
    """How weights are stored: what a recipe chooses.

    ``error`` is the largest error of a layer, relative to its largest output, against float64. ``always``
    takes such a layer wherever one is legal, for its size, and measures only which; otherwise the fastest of
    all wins. ``devices`` are those that have operators for them.
    """

    summary: str
    error: float
    always: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")


WEIGHTS: Mapping[str, Weights] = {
    "fp32": Weights("32-bit weights", error=2e-5, always=False),
    "sparse": Weights("32-bit weights without their zeros", error=2e-5, always=False),
    "w16": Weights("bfloat16 weights, fp32 arithmetic", error=2e-2, devices=("cpu",)),
    "w8": Weights("8-bit weights with a scale per output, fp32 arithmetic", error=3e-2),
    "w4": Weights("4-bit weights in groups of 128, fp32 sums", error=0.25, devices=("cuda",)),
    "w4a8": Weights("4-bit weights in groups of 32, 8-bit activations", error=0.2, devices=("cpu",)),
    "int8-exact": Weights("8-bit weights and activations, or 7-bit without VNNI, exact sums", error=5e-2),
}


LEAST_ZEROS = 0.25
"""With fewer, nothing sparse is ever faster, and packing it takes long."""


class Pointwise(nn.Module):
    """A 1x1 convolution as a linear layer over the channels of a tensor in channels_last."""

    def __init__(self, linear: nn.Module, stride: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.stride = linear, stride

    def forward(self, input: Tensor, *residual: Tensor) -> Tensor:
        down, right = self.stride
        pixels = input[:, :, ::down, ::right]
        output: Tensor = self.linear(*(each.permute(0, 2, 3, 1) for each in (pixels, *residual)))
        return output.permute(0, 3, 1, 2)


def candidates(block: Block, weights: str, rows: Iterable[Candidate]) -> Iterator[Candidate]:
    """Those of ``rows`` that can compute ``block`` with these weights; libraries and fp32 always can."""
    for row in rows:
        fits = row.weights in ("fp32", weights) and isinstance(block.layer, row.layer)
        if fits and row.why_not(block.layer) is None:
            yield row


def anything(_: Layer) -> None:
    return None


def _numeric_padding(conv: nn.Conv2d) -> str | None:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return f"padding is {conv.padding}, {conv.padding_mode}; it must be a pair of numbers, zeros"
    return None


def _not_pointwise(conv: nn.Conv2d) -> str | None:
    if conv.kernel_size != (1, 1) or conv.groups != 1 or conv.padding != (0, 0):
        return "it is no 1x1 convolution without padding and groups"
    return None


def _one_dense_group(conv: nn.Conv2d) -> str | None:
    if conv.groups > 1:
        return f"groups is {conv.groups}; an integer product for each costs more than it saves"
    return Int8Conv2d.why_not(conv)


def _as_linear(conv: nn.Conv2d) -> nn.Linear:
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1))
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach())
    return linear


def _pointwise_why_not(conv: nn.Conv2d, why_not: Callable[[Any], str | None]) -> str | None:
    return _not_pointwise(conv) or why_not(_as_linear(conv))


def _pointwise(
    conv: nn.Conv2d, activation: str | None, shape: Shape, make: Callable[[Any, str | None, Shape], nn.Module]
) -> nn.Module:
    down, right = conv.stride
    return Pointwise(make(_as_linear(conv), activation, shape), (down, right))


def linear_and_pointwise(
    name: str,
    weights: str,
    operator: str,
    make: Callable[[Any, str | None, Shape], nn.Module],
    why_not: Callable[[Any], str | None] = anything,
    fuses: tuple[str, ...] = ("relu",),
) -> Iterator[Candidate]:
    """A linear layer with an activation, and the 1x1 convolution that it also is."""
    yield Candidate(name, nn.Linear, make, why_not, operator, weights, fuses)
    yield Candidate(
        name,
        nn.Conv2d,
        partial(_pointwise, make=make),
        partial(_pointwise_why_not, why_not=why_not),
        operator,
        weights,
        fuses,
    )


def _packed(linear: nn.Linear, activation: str | None, _: Shape, dtype: torch.dtype) -> nn.Module:
    return PackedLinear.from_linear(linear, dtype=dtype, relu=activation is not None)


def _w4a8(linear: nn.Linear, activation: str | None, _: Shape) -> nn.Module:
    return W4A8Linear.from_linear(linear, relu=activation is not None)


def _int8(linear: nn.Linear, activation: str | None, _: Shape, bits: int) -> nn.Module:
    return Int8Linear.from_linear(linear, bits=bits, relu=activation is not None)


def _int7_why_not(linear: nn.Linear) -> str | None:
    if instruction_set() == "avx512_vnni":
        return "VNNI multiplies 8 bits as fast as 7"
    return Int8Linear.why_not(linear)


def _int8_winograd(conv: nn.Conv2d, activation: str | None, _: Shape) -> nn.Module:
    return Int8WinogradConv2d.from_conv(conv, relu=activation is not None)


def _int8_conv(conv: nn.Conv2d, activation: str | None, _: Shape) -> nn.Module:
    return Int8Conv2d.from_conv(conv, relu=activation is not None)


def _winograd(
    conv: nn.Conv2d, activation: str | None, _: Shape, tile: int, as_stored: bool = False
) -> nn.Module:
    return WinogradConv2d.from_conv(conv, tile=tile, relu=activation is not None, as_stored=as_stored)


def _as_stored_why_not(conv: nn.Conv2d) -> str | None:
    if conv.kernel_size != (3, 3) or conv.stride != (1, 1):
        return f"kernel_size is {conv.kernel_size}, stride {conv.stride}; they must be 3 and 1"
    return WinogradConv2d.why_not(conv, tile=4)


def _depthwise(conv: nn.Conv2d, activation: str | None, _: Shape) -> nn.Module:
    return DepthwiseConv2d.from_conv(conv, activation=cast(Activation, activation or "none"))


def _direct(conv: nn.Conv2d, activation: str | None, _: Shape) -> nn.Module:
    return DirectConv2d.from_conv(conv, activation=cast(Activation, activation or "none"))


def _sparse(layer: Layer, activation: str | None, _: Shape, block: int) -> nn.Module:
    relu = activation is not None
    if isinstance(layer, nn.Linear):
        return SparseLinear.from_dense(layer, block=block, relu=relu)
    return SparseConv2d.from_dense(layer, block=block, relu=relu)


def _too_dense(layer: Layer, block: int) -> str | None:
    zeros = zero_share(layer.weight.detach(), block)
    if not LEAST_ZEROS <= zeros < 1.0:
        return f"{zeros:.0%} of its {block}x1 blocks are zero; it must be {LEAST_ZEROS:.0%} or more, not all"
    return SparseConv2d.why_not(layer) if isinstance(layer, nn.Conv2d) else None


def zero_share(weight: Tensor, block: int) -> float:
    """The share of zeros of ``weight`` [N, ...], counted in blocks of ``block`` consecutive outputs."""
    if weight.shape[0] % block:
        return 0.0
    return float((weight.unflatten(0, (-1, block)) == 0).all(1).float().mean())


_LIBRARIES = (
    Candidate("torch", nn.Linear, lambda layer, *_: copy.deepcopy(layer), anything),
    Candidate("torch", nn.Conv2d, lambda layer, *_: libraries.row_major(layer), anything),
    Candidate("torch channels_last", nn.Conv2d, lambda layer, *_: libraries.channels_last(layer), anything),
    Candidate("oneDNN prepacked", nn.Linear, libraries.OneDnnLinear, anything, fuses=("relu",)),
    Candidate(
        "oneDNN prepacked", nn.Conv2d, libraries.OneDnnConv2d, _numeric_padding, fuses=("relu", "residual")
    ),
)

_FP32 = (
    *(
        Candidate(
            f"winograd F({tile}x{tile})",
            nn.Conv2d,
            partial(_winograd, tile=tile),
            partial(WinogradConv2d.why_not, tile=tile),
            "leanmark::winograd_conv2d",
            fuses=("relu", "residual"),
        )
        for tile in (4, 3, 2)
    ),
    Candidate(
        "winograd F(4x4) as stored",
        nn.Conv2d,
        partial(_winograd, tile=4, as_stored=True),
        _as_stored_why_not,
        "leanmark::winograd_conv2d",
        fuses=("relu", "residual"),
    ),
    *linear_and_pointwise(
        "packed fp32", "fp32", "leanmark::packed_linear", partial(_packed, dtype=torch.float32)
    ),
)

_DIRECT = (
    Candidate(
        "direct",
        nn.Conv2d,
        _direct,
        DirectConv2d.why_not,
        "leanmark::direct_conv2d",
        fuses=("relu", "relu6", "residual"),
    ),
)

_POOLING = (
    Candidate("torch", nn.MaxPool2d, lambda pool, *_: copy.deepcopy(pool), anything),
    Candidate(
        "max pool",
        nn.MaxPool2d,
        lambda pool, *_: MaxPool2d.from_pool(pool),
        MaxPool2d.why_not,
        "leanmark::max_pool2d",
    ),
    Candidate("torch", nn.AdaptiveAvgPool2d, lambda pool, *_: copy.deepcopy(pool), anything),
    Candidate(
        "mean pool",
        nn.AdaptiveAvgPool2d,
        lambda *_: MeanPool2d(),
        MeanPool2d.why_not,
        "leanmark::mean_pool2d",
    ),
)

_DEPTHWISE = (
    Candidate(
        "depthwise",
        nn.Conv2d,
        _depthwise,
        DepthwiseConv2d.why_not,
        "leanmark::depthwise_conv2d",
        fuses=("relu", "relu6"),
    ),
)

_WEIGHT_ONLY = (
    *linear_and_pointwise(
        "packed w16", "w16", "leanmark::packed_linear", partial(_packed, dtype=torch.bfloat16)
    ),
    *linear_and_pointwise("packed w8", "w8", "leanmark::packed_linear", partial(_packed, dtype=torch.int8)),
)

_INTEGER = (
    *linear_and_pointwise("w4a8", "w4a8", "leanmark::w4a8_linear", _w4a8, W4A8Linear.why_not),
    *linear_and_pointwise(
        "int8 exact",
        "int8-exact",
        "leanmark::int8_dynamic_linear",
        partial(_int8, bits=8),
        Int8Linear.why_not,
    ),
    *linear_and_pointwise(
        "int7 exact", "int8-exact", "leanmark::int8_dynamic_linear", partial(_int8, bits=7), _int7_why_not
    ),
    Candidate(
        "int8 winograd",
        nn.Conv2d,
        _int8_winograd,
        Int8WinogradConv2d.why_not,
        "leanmark::int8_winograd_conv2d",
        "int8-exact",
        ("relu", "residual"),
    ),
    Candidate(
        "int8 conv", nn.Conv2d, _int8_conv, _one_dense_group, "leanmark::int8_conv2d", "int8-exact", ("relu",)
    ),
)

_SPARSE = tuple(
    Candidate(
        f"sparse {block}x1",
        layer,
        partial(_sparse, block=block),
        partial(_too_dense, block=block),
        operator,
        "sparse",
        ("relu", "residual"),
    )
    for block in (1, 4)
    for layer, operator in ((nn.Linear, "leanmark::sparse_linear"), (nn.Conv2d, "leanmark::sparse_conv2d"))
)

ROWS: tuple[Candidate, ...] = (
    *_LIBRARIES,
    *_FP32,
    *_DIRECT,
    *_DEPTHWISE,
    *_POOLING,
    *_WEIGHT_ONLY,
    *_INTEGER,
    *_SPARSE,
)
"""The first row of a layer is the one that is never refused."""
