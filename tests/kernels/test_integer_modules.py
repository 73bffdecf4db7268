"""``W4A8Linear``, ``Int8Linear`` and the 8-bit convolutions: layers of integers, for inference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leanmark_kernels import Int8Conv2d, Int8Linear, Int8WinogradConv2d, W4A8Linear
from leanmark_kernels import integer_packing as integers
from leanmark_kernels.packed_state import PackedModule

from . import packed_layers


def conv(**changed: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, **changed})


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(64, 20, bias=bias)


def example(layer: PackedModule) -> Tensor:
    shape = (3, 64) if isinstance(layer, W4A8Linear | Int8Linear) else (2, 4, 7, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("made", "bound"),
    [
        (lambda: W4A8Linear.from_linear(linear()), 0.2),
        (lambda: W4A8Linear.from_linear(linear(bias=False), zero_points=True), 0.2),
        (lambda: Int8Linear.from_linear(linear()), 0.02),
        (lambda: Int8Linear.from_linear(linear(), bits=7), 0.04),
    ],
)
def test_linear_computes_about_what_it_was_made_from(made: Callable[[], PackedModule], bound: float) -> None:
    layer = made()
    original, input = linear(layer.bias is not None), example(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(input), original(input), atol=bound, rtol=0)
        three = input.view(3, 1, 64)
        assert layer(three).equal(layer(input).view(3, 1, 20))
        assert layer(input[:0]).shape == (0, 20)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"bias": False},
        {"padding": 0},
        {"padding": "same"},
        {"padding": "valid"},
        {"stride": 2},
        {"groups": 2, "dilation": 2},
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": (5, 2), "padding": (0, 3), "stride": (1, 2)},
        {"kernel_size": (3, 5), "padding": "same", "dilation": (2, 1)},
    ],
)
def test_conv_computes_about_what_it_was_made_from(changed: dict[str, object]) -> None:
    original = conv(**changed)
    layer = Int8Conv2d.from_conv(original)
    input = example(layer)
    with torch.no_grad():
        expected = original(input)
        torch.testing.assert_close(layer(input), expected, atol=0.03, rtol=0)
        assert Int8Conv2d.from_conv(original, relu=True)(input).equal(layer(input).relu())
        assert layer(input[:0]).shape == expected[:0].shape


@pytest.mark.parametrize("changed", [{}, {"bias": False}, {"padding": 0}, {"padding": 2}])
def test_winograd_gives_the_very_same_as_the_direct_convolution(changed: dict[str, object]) -> None:
    direct = Int8Conv2d.from_conv(conv(**changed))
    fast = Int8WinogradConv2d.from_conv(conv(**changed))
    input = example(fast).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        output = fast(input)
        assert output.equal(direct(input))
        assert fast(input, torch.ones_like(output)).equal(output + 1)


def test_the_integers_are_those_of_the_whole_image() -> None:
    """By hand: both sides rounded symmetrically, the product exact, one scale for each image."""
    original = conv(bias=False)
    input = example(Int8Conv2d(original))
    values, scale = integers.quantize_channels(original.weight)
    largest = input.abs().amax((1, 2, 3), keepdim=True)
    rounded = (input * (127 / largest)).round()
    sums = F.conv2d(rounded.double(), values.double(), padding=1).float()
    expected = sums * (largest / 127 * scale[:, None, None])
    with torch.no_grad():
        assert Int8WinogradConv2d.from_conv(original)(input).equal(expected)


@pytest.mark.parametrize("name", ["w4a8", "int8 linear", "int8 winograd", "int8 conv"])
def test_backward_is_refused(name: str) -> None:
    layer = packed_layers.LAYERS[name].make()
    output = layer(packed_layers.example(layer).requires_grad_())
    with pytest.raises(NotImplementedError, match="has no gradient.*torch.no_grad"):
        output.sum().backward()


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (
            lambda: W4A8Linear.from_linear(nn.Linear(40, 3)),
            "in_features is 40; it must be a multiple of the gr",
        ),
        (lambda: W4A8Linear.from_linear(linear(), group=48), "group is 48; it must be a multiple of 32"),
        (
            lambda: W4A8Linear.from_linear(linear().half()),
            "weight is torch.float16; it must be torch.float32",
        ),
        (
            lambda: Int8Linear.from_linear(linear().half()),
            "weight is torch.float16; it must be torch.float32",
        ),
        (
            lambda: Int8Linear.from_linear(nn.Linear(65537, 1)),
            "in_features is 65537; it must be at most 65536",
        ),
        (lambda: Int8Linear.from_linear(linear(), bits=4), "bits is 4; it must be 7 or 8"),
        (lambda: Int8WinogradConv2d.from_conv(conv(stride=2)), r"stride .2, 2.; .* Use Int8Conv2d"),
        (
            lambda: Int8WinogradConv2d.from_conv(conv(in_channels=1821)),
            "in_channels is 1821; it must be at most",
        ),
        (
            lambda: Int8Conv2d.from_conv(conv(padding_mode="reflect")),
            "padding_mode is reflect; it must be zeros",
        ),
        (
            lambda: Int8Conv2d.from_conv(conv(kernel_size=2, padding="same")),
            "padding is same with kernel_size",
        ),
        (lambda: Int8Conv2d.from_conv(conv().half()), "weight is torch.float16; it must be torch.float32"),
        (
            lambda: Int8Conv2d.from_conv(conv(in_channels=7300)),
            "an output has 65700 weights; they must be at",
        ),
    ],
)
def test_what_stays_with_torch(made: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        made()


def test_nan_weights_are_refused() -> None:
    layers = linear(), conv()
    for layer in layers:
        nn.init.constant_(layer.weight, float("nan"))
    for made in (W4A8Linear.from_linear, Int8Linear.from_linear):
        with pytest.raises(ValueError, match="weight has 1280 of 1280 values that are NaN"):
            made(layers[0])
    for made_of_conv in (Int8WinogradConv2d.from_conv, Int8Conv2d.from_conv):
        with pytest.raises(ValueError, match="weight has 216 of 216 values that are NaN"):
            made_of_conv(layers[1])
