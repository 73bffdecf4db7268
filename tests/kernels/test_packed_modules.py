"""``WinogradConv2d`` and ``PackedLinear`` compute what they were made from; what stays with torch is told."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanmark_kernels import PackedLinear, WinogradConv2d, packing
from leanmark_kernels.packed_state import PackedModule


def conv(**changed: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, **changed})


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(10, 20, bias=bias)


def example(layer: PackedModule) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = (2, 4, 5, 6) if isinstance(layer, WinogradConv2d) else (3, 10)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize(
    "changed", [{}, {"bias": False}, {"padding": 0}, {"padding": "same"}, {"padding": "valid"}]
)
@pytest.mark.parametrize("tile", [2, 4])
def test_conv_computes_what_it_was_made_from(changed: dict[str, object], tile: int) -> None:
    original = conv(**changed)
    layer = WinogradConv2d.from_conv(original, tile=tile, relu=True)
    input = example(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(input), original(input).relu(), atol=1e-5, rtol=0)
        residual = torch.ones_like(layer(input))
        torch.testing.assert_close(layer(input, residual), (original(input) + 1).relu(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.int8, 2e-2)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_computes_what_it_was_made_from(dtype: torch.dtype, bound: float, bias: bool) -> None:
    original = linear(bias)
    layer = PackedLinear.from_linear(original, dtype=dtype)
    input = example(layer)
    with torch.no_grad():
        torch.testing.assert_close(layer(input), original(input), atol=bound, rtol=0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (
            {"kernel_size": 5},
            r"kernel_size is \(5, 5\), stride \(1, 1\); they must be 3 with stride 1, on both axes",
        ),
        (
            {"stride": 2},
            r"kernel_size is \(3, 3\), stride \(2, 2\); they must be 3 with stride 1, on both axes",
        ),
        ({"dilation": 2}, r"dilation is \(2, 2\); it must be \(1, 1\)"),
        ({"groups": 2}, "groups is 2; it must be 1"),
        ({"padding_mode": "reflect"}, "padding_mode is reflect; it must be zeros"),
        ({"padding": (1, 0)}, r"padding is \(1, 0\); it must be the same on both axes"),
        ({"dtype": torch.float64}, "weight is torch.float64; it must be torch.float32"),
    ],
)
def test_what_stays_with_torch(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=f"WinogradConv2d cannot replace .*{reason}. Keep torch's layer"):
        WinogradConv2d.from_conv(conv(**changed))
    assert WinogradConv2d.why_not(conv(**changed)) is not None


@pytest.mark.parametrize(
    ("changed", "tile"), [({"padding": "same"}, 4), ({"stride": 2}, 2), ({"kernel_size": 7, "stride": 2}, 3)]
)
def test_what_can_be_replaced(changed: dict[str, object], tile: int) -> None:
    assert WinogradConv2d.why_not(conv(**changed), tile) is None


def test_what_the_tile_cannot_replace() -> None:
    legal = "3 with stride 1 or 3 with stride 2, on both axes"
    assert str(WinogradConv2d.why_not(conv(stride=(1, 2)), tile=2)).endswith(f"they must be {legal}")
    assert WinogradConv2d.why_not(conv(), tile=6) == "tile is 6; it must be one of [2, 3, 4]"


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match="weight is torch.float64; it must be one of"):
        PackedLinear(10, 20, dtype=torch.float64)
    assert torch.float64 not in packing.LINEAR_DTYPES
