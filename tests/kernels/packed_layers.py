"""One packed layer of each kind, made from one of torch's, and the same without its numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import leanmark_kernels as lk
from leanmark_kernels.packed_state import PackedModule


def conv(kernel: int = 3, channels: tuple[int, int] = (5, 5), **changed: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(*channels, kernel, **{"padding": kernel // 2, **changed})


def linear(inputs: int = 31, bias: bool = True) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(inputs, 20, bias=bias)


def block(channels: int = 5) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    return conv(1, (channels, 10)), conv(3, (10, 10), groups=10), conv(1, (10, channels))


class Kind(NamedTuple):
    make: Callable[[], PackedModule]
    empty: Callable[[], PackedModule]
    """To load the state of the first into."""


# Widths that no layout has: each is filled up.
LAYERS = {
    "winograd": Kind(
        lambda: lk.WinogradConv2d.from_conv(conv(bias=False), relu=True),
        lambda: lk.WinogradConv2d(5, 5, bias=False, relu=True),
    ),
    "winograd as stored": Kind(
        lambda: lk.WinogradConv2d.from_conv(conv(), as_stored=True),
        lambda: lk.WinogradConv2d(5, 5, as_stored=True),
    ),
    "winograd 7x7": Kind(
        lambda: lk.WinogradConv2d.from_conv(conv(7, stride=2), tile=3),
        lambda: lk.WinogradConv2d(5, 5, tile=3, kernel_size=7, stride=2, padding=3),
    ),
    "fp32": Kind(lambda: lk.PackedLinear.from_linear(linear()), lambda: lk.PackedLinear(31, 20)),
    "fp16": Kind(
        lambda: lk.PackedLinear.from_linear(linear(), dtype=torch.float16),
        lambda: lk.PackedLinear(31, 20, dtype=torch.float16),
    ),
    "bf16": Kind(
        lambda: lk.PackedLinear.from_linear(linear(), dtype=torch.bfloat16),
        lambda: lk.PackedLinear(31, 20, dtype=torch.bfloat16),
    ),
    "w8": Kind(
        lambda: lk.PackedLinear.from_linear(linear(), dtype=torch.int8, relu=True),
        lambda: lk.PackedLinear(31, 20, dtype=torch.int8, relu=True),
    ),
    "w4a8": Kind(
        lambda: lk.W4A8Linear.from_linear(linear(32), relu=True), lambda: lk.W4A8Linear(32, 20, relu=True)
    ),
    "w4a8 with zero points": Kind(
        lambda: lk.W4A8Linear.from_linear(linear(64, bias=False), group=64, zero_points=True),
        lambda: lk.W4A8Linear(64, 20, group=64, zero_points=True, bias=False),
    ),
    "int8 linear": Kind(
        lambda: lk.Int8Linear.from_linear(linear(), relu=True), lambda: lk.Int8Linear(31, 20, relu=True)
    ),
    "int7 linear": Kind(
        lambda: lk.Int8Linear.from_linear(linear(bias=False), bits=7),
        lambda: lk.Int8Linear(31, 20, bits=7, bias=False),
    ),
    "int8 winograd": Kind(
        lambda: lk.Int8WinogradConv2d.from_conv(conv(), relu=True),
        lambda: lk.Int8WinogradConv2d(5, 5, relu=True),
    ),
    "int8 conv": Kind(
        lambda: lk.Int8Conv2d.from_conv(conv(stride=2, groups=5)),
        lambda: lk.Int8Conv2d(conv(stride=2, groups=5)),
    ),
    "sparse linear": Kind(lambda: lk.SparseLinear.from_dense(linear()), lambda: lk.SparseLinear(31, 20)),
    "sparse conv": Kind(
        lambda: lk.SparseConv2d.from_dense(conv(), block=4),
        lambda: lk.SparseConv2d(5, 5, (3, 3), padding=(1, 1), block=4),
    ),
    "direct": Kind(
        lambda: lk.DirectConv2d.from_conv(conv(stride=2), activation="relu"),
        lambda: lk.DirectConv2d(5, 5, (3, 3), stride=(2, 2), padding=(1, 1), activation="relu"),
    ),
    "depthwise": Kind(
        lambda: lk.DepthwiseConv2d.from_conv(conv(groups=5), activation="relu"),
        lambda: lk.DepthwiseConv2d(5, activation="relu"),
    ),
    "inverted residual": Kind(
        lambda: lk.InvertedResidual.from_convs(*block()),
        lambda: lk.InvertedResidual(5, 10, 5),
    ),
    "inverted residual without expansion": Kind(
        lambda: lk.InvertedResidual.from_convs(None, *block()[1:]),
        lambda: lk.InvertedResidual(10, None, 5),
    ),
}
EVERY = pytest.mark.parametrize("name", LAYERS)


def example(layer: PackedModule) -> Tensor:
    options = layer.options
    if "in_features" in options:
        shape: tuple[int, ...] = (3, options["in_features"])
    else:
        shape = (2, options["channels" if "channels" in options else "in_channels"], 6, 7)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))
