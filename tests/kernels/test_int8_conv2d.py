"""``leanmark::int8_winograd_conv2d`` and the direct convolution of integers: exact, whatever the numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import int8_conv2d, int8_winograd_conv2d
from leanmark_kernels import integer_packing as integers
from leanmark_kernels.integer_packing import PackedInt8, Quantized
from leanmark_kernels.ops.int8_conv2d import Geometry

ONE = torch.ones(1)


def winograd(input: Tensor, weight: Tensor, zero_point: int = 0, padding: int = 1) -> Tensor:
    """The integers that the operator gives, where they fit float32."""
    packed = PackedInt8(integers.pack_int8_winograd(weight), torch.ones(weight.shape[0]))
    output = int8_winograd_conv2d(
        Quantized(input, ONE, zero_point), packed, out_channels=weight.shape[0], padding=padding
    )
    return output.double()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("zero_point", [0, 128, 255])
def test_the_largest_transforms_are_exact(value: int, weight: int, zero_point: int) -> None:
    input = torch.full((1, 20, 7, 6), value, dtype=torch.uint8)
    weights = torch.full((3, 20, 3, 3), weight, dtype=torch.int8)
    expected = F.conv2d(input.double() - zero_point, weights.double(), padding=1)
    assert winograd(input, weights, zero_point).equal(expected)


def test_the_most_channels_fit() -> None:
    channels = integers.MOST_CHANNELS
    weights = torch.full((1, channels, 3, 3), -128, dtype=torch.int8)
    for value, zero_point in ((255, 0), (0, 255)):
        input = torch.full((1, channels, 3, 4), value, dtype=torch.uint8)
        expected = F.conv2d(input.double() - zero_point, weights.double(), padding=1)
        assert winograd(input, weights, zero_point).equal(expected.float().double())


# The rows of the transforms of pixels and weights, for the points 0, 1, -1, 2, -1/2 and infinity.
OF_WEIGHTS = torch.tensor(((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (4, -2, 1), (0, 0, 1)))
OF_PIXELS = torch.tensor(
    (
        (2, 3, -4, -3, 2, 0),
        (0, 2, 5, 1, -2, 0),
        (0, 2, 1, -5, 2, 0),
        (0, -1, -2, 1, 2, 0),
        (0, -2, 1, 2, -1, 0),
        (0, 2, 3, -4, -3, 2),
    )
)


def added(rows: Tensor) -> Tensor:
    """Whether a point [36] adds a value [1, n, n] or takes it off."""
    return torch.einsum("ai,bj->abij", rows, rows).flatten(0, 1)[:, None] >= 0


@pytest.mark.parametrize("high", [0, 255])
@pytest.mark.parametrize("zero_point", [0, 100, 255])
def test_the_largest_value_of_every_point_is_exact(high: int, zero_point: int) -> None:
    """An image and an output for each point: one extreme where it adds, the other where it takes off."""
    input = torch.where(added(OF_PIXELS), high, 255 - high).to(torch.uint8).repeat(1, 8, 1, 1)
    weights = torch.where(added(OF_WEIGHTS), -128, 127).to(torch.int8).repeat(1, 8, 1, 1)
    expected = F.conv2d(input.double() - zero_point, weights.double(), padding=0)
    assert winograd(input, weights, zero_point, padding=0).equal(expected)


def test_known_values() -> None:
    """A scale for each image and each output, the zero point in the padding, bias, residual and ReLU."""
    input = Quantized(torch.full((2, 1, 3, 3), 12, dtype=torch.uint8), torch.tensor([0.5, 1.0]), 10)
    packed = PackedInt8(
        integers.pack_int8_winograd(torch.ones(1, 1, 3, 3, dtype=torch.int8)), torch.tensor([2.0])
    )
    sums = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]])  # of neighbours
    output = int8_winograd_conv2d(input, packed, torch.tensor([1.0]), out_channels=1)
    assert output[0, 0].equal(2 * sums + 1)
    assert output[1, 0].equal(4 * sums + 1)
    residual = torch.full((2, 1, 3, 3), -20.0)
    output = int8_winograd_conv2d(input, packed, None, residual, out_channels=1, relu=True)
    assert output[0, 0].equal((2 * sums - 20).relu())


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry((1, 1)),
        Geometry((3, 3), padding=(1, 1)),
        Geometry((3, 3), stride=(2, 2), padding=(1, 1)),
        Geometry((5, 2), stride=(1, 3), padding=(2, 0), dilation=(2, 1)),
        Geometry((3, 3), dilation=(3, 2), padding=(4, 5)),
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_the_direct_convolution_is_exact(geometry: Geometry, groups: int) -> None:
    generator = torch.Generator().manual_seed(1)
    input = torch.randint(0, 256, (2, 6, 9, 11), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-128, 128, (12, 6 // groups, *geometry.kernel_size), generator=generator)
    rows = weight.to(torch.int8).permute(0, 2, 3, 1).flatten(1).chunk(groups)
    packed = PackedInt8(torch.stack([integers.pack_int8_linear(each) for each in rows]), torch.ones(12))
    scale = torch.tensor([1.0, 2.0])
    output = int8_conv2d(Quantized(input, scale, 100), packed, torch.ones(12), geometry=geometry)
    others: dict[str, Any] = {
        "stride": geometry.stride,
        "padding": geometry.padding,
        "dilation": geometry.dilation,
        "groups": groups,
    }
    expected = F.conv2d(input.double() - 100, weight.double(), **others) * scale[:, None, None, None] + 1
    assert output.double().equal(expected)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_a_scale_that_is_not_finite_is_refused() -> None:
    packed = PackedInt8(P, torch.full((18,), float("nan")))
    with pytest.raises(RuntimeError, match="int8_winograd_conv2d: scale must be finite"):
        int8_winograd_conv2d(Quantized(X, ONE), packed, out_channels=18)


def test_registration_is_complete() -> None:
    winograd = (X, P, S, torch.ones(2), 3, S, torch.zeros(2, 18, 6, 7), 18, 1, True)
    torch.library.opcheck(torch.ops.leanmark.int8_winograd_conv2d.default, winograd)
    direct = (X.float(), D, S, None, 0, S, (3, 3, 2, 1, 1, 0, 1, 2), True)
    torch.library.opcheck(torch.ops.leanmark.int8_conv2d.default, direct)


X, W, S = (
    torch.zeros(2, 5, 6, 7, dtype=torch.int8),
    torch.zeros(18, 5, 3, 3, dtype=torch.int8),
    torch.ones(18),
)
P = integers.pack_int8_winograd(W)
D = integers.pack_int8_linear(W.permute(0, 2, 3, 1).flatten(1))[None]
THREE = ((3, 3), (1, 1), (1, 1), (1, 1))
WINDOW = Geometry(*THREE).window()


@pytest.mark.parametrize(
    ("input", "weight", "changed", "error", "message"),
    [
        (
            {"values": X.int()},
            {},
            {},
            TypeError,
            "input is torch.int32; it must be torch.int8 or torch.uint8",
        ),
        ({"zero_point": 300}, {}, {}, ValueError, "zero_point is 300; it must be from -128 to 127"),
        ({"scale": S}, {}, {}, ValueError, r"input_scale is \[18\]; it must be \[1\] or \[N\] = \[2\]"),
        (
            {"values": X[0]},
            {},
            {},
            ValueError,
            r"input is \[5, 6, 7\]; it must be \[N, C, H, W\] with C from 1",
        ),
        (
            {"values": X[:, :4]},
            {},
            {},
            ValueError,
            r"weight is \[2, 4, 9, 16, 2\]; it must be \[2, 2, 9, 16,",
        ),
        ({}, {"weight": P.int()}, {}, TypeError, "weight is torch.int32; it must be torch.int8"),
        ({}, {"scale": S[:3]}, {}, ValueError, r"scale is \[3\]; it must be \[18\]"),
        ({}, {"scale": S.double()}, {}, TypeError, "scale is torch.float64; it must be torch.float32"),
        ({}, {"weight": P.to("meta")}, {}, ValueError, "weight is on meta; it must be on cpu"),
        ({}, {}, {"bias": S[:3]}, ValueError, r"bias is \[3\]; it must be \[18\] or None"),
        ({}, {}, {"out_channels": 33}, ValueError, r"it must be \[3, 4, 9, 16, 2\]"),
        ({}, {}, {"residual": S}, ValueError, r"residual is \[18\]; it must be \[2, 18, 6, 7\]"),
        ({}, {}, {"padding": -1}, ValueError, "padding is -1; it must be 0 or more"),
        ({"values": X[:, :, :2]}, {}, {"padding": 0}, ValueError, "height and width must be at least 3"),
    ],
)
def test_mistakes_are_explained(
    input: dict[str, Any],
    weight: dict[str, Tensor],
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    quantized = Quantized(X, ONE)._replace(**input)
    packed = PackedInt8(P, S)._replace(**weight)
    with pytest.raises(error, match=f"int8_winograd_conv2d: .*{message}"):
        int8_winograd_conv2d(quantized, packed, **{"out_channels": 18, **changed})


@pytest.mark.parametrize(
    ("input", "weight", "changed", "error", "message"),
    [
        (
            {"values": X.int()},
            {},
            {},
            TypeError,
            "input is torch.int32; it must be torch.int8 or torch.uint8",
        ),
        ({"zero_point": 300}, {}, {}, ValueError, "zero_point is 300; it must be from -128 to 127"),
        ({"scale": S}, {}, {}, ValueError, r"input_scale is \[18\]; it must be \[1\] or \[N\] = \[2\]"),
        ({"values": X[0]}, {}, {}, ValueError, r"input is \[5, 6, 7\] with 1 groups and 18 outputs"),
        ({"values": X[:, :4]}, {}, {}, ValueError, r"weight is \[1, 2, 896\]; it must be \[1, 2, 768\]"),
        ({}, {"weight": D.int()}, {}, TypeError, "weight is torch.int32; it must be torch.int8"),
        ({}, {"weight": D[0]}, {}, ValueError, r"with 0 groups and 18 outputs"),
        ({}, {"weight": D.to("meta")}, {}, ValueError, "weight is on meta; it must be on cpu"),
        ({}, {"scale": S[:3]}, {}, ValueError, r"weight is \[1, 2, 896\]; it must be \[1, 1, 896\]"),
        ({}, {"scale": S / 0}, {}, RuntimeError, "scale must be finite"),
        ({}, {}, {"bias": S[:3]}, ValueError, r"bias is \[3\]; it must be \[18\] or None"),
        ({}, {}, {"geometry": Geometry((2, 3))}, ValueError, r"it must be \[1, 2, 640\]"),
        ({}, {}, {"geometry": Geometry((3, 3), (0, 1))}, ValueError, r"stride is \[0, 1\]; it must be two"),
        ({}, {}, {"geometry": Geometry((3, 3), dilation=(3, 1))}, ValueError, "must be at least 7 high"),
    ],
)
def test_mistakes_in_the_direct_convolution_are_explained(
    input: dict[str, Any],
    weight: dict[str, Tensor],
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    quantized = Quantized(X, ONE)._replace(**input)
    packed = PackedInt8(D, S)._replace(**weight)
    with pytest.raises(error, match=f"int8_conv2d: .*{message}"):
        int8_conv2d(quantized, packed, **{"geometry": Geometry(*THREE), **changed})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: integers.pack_int8_winograd(W.float()),
            TypeError,
            "weight is torch.float32; it must be torch.i",
        ),
        (lambda: integers.pack_int8_winograd(W[0]), ValueError, r"it must be \[O, C, 3, 3\]"),
        (
            lambda: integers.pack_int8_winograd(W[..., :1]),
            ValueError,
            r"it must be \[O, C, 3, 3\] with O at least 1",
        ),
        (
            lambda: integers.pack_int8_winograd(W[:, :1].expand(18, 1821, 3, 3)),
            ValueError,
            "C from 1 to 1820, or a sum could leave 32 bits",
        ),
        (
            lambda: int8_conv2d(
                Quantized(X, ONE), PackedInt8(D.expand(3, 2, -1), S), geometry=Geometry((1, 1))
            ),
            ValueError,
            r"input is \[2, 5, 6, 7\] with 3 groups and 18 outputs; .* the groups must divide C",
        ),
        (
            lambda: int8_conv2d(Quantized(X, ONE), PackedInt8(D, S), geometry=Geometry((3, 8))),
            ValueError,
            "with its padding it must be at least 8 wide",
        ),
    ],
)
def test_what_cannot_be_packed_or_convolved(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
@pytest.mark.parametrize(
    "arguments",
    [
        (X.int(), P, S, ONE, 0, S, None, 18, 1, True),
        (X[0], P, S, ONE, 0, S, None, 18, 1, True),
        (X[:, :4], P, S, ONE, 0, S, None, 18, 1, True),
        (X, P[:, :, :8], S, ONE, 0, S, None, 18, 1, True),
        (X, P.short(), S, ONE, 0, S, None, 18, 1, True),
        (X, P, S[:3], ONE, 0, S, None, 18, 1, True),
        (X, P, S, S[:3], 0, S, None, 18, 1, True),
        (X, P, S, ONE, 128, S, None, 18, 1, True),
        (X.byte(), P, S, ONE, -1, S, None, 18, 1, True),
        (X, P, S, ONE, 0, S[:3], None, 18, 1, True),
        (X, P, S, ONE, 0, S, S, 18, 1, True),
        (X, P, S, ONE, 0, S, None, 33, 1, True),
        (X, P, S, ONE, 0, S, None, 18, -1, True),
        (X[:, :, :2], P, S, ONE, 0, S, None, 18, 0, True),
        (X, P, S, None, 0, S, None, 18, 1, True),
        (X.float(), P, S, ONE, 0, S, None, 18, 1, True),
    ],
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[Tensor | int | None, ...]) -> None:
    with pytest.raises(RuntimeError, match="int8_winograd_conv2d: "):
        torch.ops.leanmark.int8_winograd_conv2d(*arguments)


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
@pytest.mark.parametrize(
    "arguments",
    [
        (X.int(), D, S, ONE, 0, S, WINDOW, True),
        (X[0], D, S, ONE, 0, S, WINDOW, True),
        (X[:, :4], D, S, ONE, 0, S, WINDOW, True),
        (X, D[0], S, ONE, 0, S, WINDOW, True),
        (X, D[:, :1], S, ONE, 0, S, WINDOW, True),
        (X, D.int(), S, ONE, 0, S, WINDOW, True),
        (X, D, S[:3], ONE, 0, S, WINDOW, True),
        (X, D, S, S[:3], 0, S, WINDOW, True),
        (X, D, S, ONE, 128, S, WINDOW, True),
        (X, D, S, ONE, 0, S[:3], WINDOW, True),
        (X, D, S, ONE, 0, None, (3, 2, 1, 1, 1, 1, 1, 1), True),
        (X, D, S, ONE, 0, None, (3, 3, 0, 1, 1, 1, 1, 1), True),
        (X, D, S, ONE, 0, None, (3, 3, 1, 1, -1, 1, 1, 1), True),
        (X, D, S, ONE, 0, None, (3, 3, 1, 1, 1, 1, 4, 1), True),
        (X, D, S, ONE, 0, None, (3, 3, 1, 1, 1, 1, 1), True),
        (X, D, S, None, 0, S, WINDOW, True),
        (X.float(), D, S, ONE, 0, S, WINDOW, True),
        (X.float(), D, S, None, 3, S, WINDOW, True),
    ],
)
def test_direct_calls_of_the_direct_convolution_never_read_stray_memory(
    arguments: tuple[object, ...],
) -> None:
    with pytest.raises(RuntimeError, match="int8_conv2d: "):
        torch.ops.leanmark.int8_conv2d(*arguments)
