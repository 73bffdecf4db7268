"""``leanmark::int8_linear`` and how floats are rounded for it: exact sums, whatever the numbers are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import leanmark_kernels
from leanmark_kernels import int8_dynamic_linear, int8_linear, quantize_int8
from leanmark_kernels import integer_packing as integers
from leanmark_kernels import integer_reference as reference
from leanmark_kernels.integer_packing import PackedInt8, Quantized

ONE = torch.ones(1)


def exact(input: Tensor, weight: Tensor, zero_point: int = 0) -> Tensor:
    """The integers that the operator gives, where they fit float32."""
    packed = PackedInt8(integers.pack_int8_linear(weight), torch.ones(weight.shape[0]))
    return int8_linear(Quantized(input, ONE, zero_point), packed, out_features=weight.shape[0]).long()


@pytest.mark.parametrize("rows", [1, 2, 4, 5])
@pytest.mark.parametrize(
    ("dtype", "value", "weight", "zero_point"),
    [
        (torch.uint8, 255, 127, 0),
        (torch.uint8, 255, -128, 0),
        (torch.uint8, 0, -128, 255),
        (torch.int8, -128, -128, 0),
        (torch.int8, 127, -128, -128),
        (torch.uint8, 127, 64, 0),
    ],
)
def test_what_saturates_elsewhere_is_exact(
    rows: int, dtype: torch.dtype, value: int, weight: int, zero_point: int
) -> None:
    """Pairs of products beyond 16 bits: 255 * 127 + 255 * 127 = 64770 saturates at 32767 in vpmaddubsw.

    The first row is 0, so that all rows of a tile span the whole range and nothing is shifted away.
    """
    input = torch.full((rows, 24), value, dtype=dtype)
    input[0, 0] = 0
    output = exact(input, torch.full((20, 24), weight, dtype=torch.int8), zero_point)
    sums = (input.long() - zero_point).sum(1) * weight
    assert output.equal(sums[:, None].expand(rows, 20))


@pytest.mark.parametrize(
    ("low", "high", "most"), [(0, 256, 128), (0, 128, 128), (0, 128, 64), (100, 164, 128)]
)
@pytest.mark.parametrize("rows", [1, 4, 7])
def test_every_arithmetic_gives_the_product(low: int, high: int, most: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    input = torch.randint(low, high, (rows, 200), dtype=torch.uint8, generator=generator)
    weight = torch.randint(-most, most, (33, 200), dtype=torch.int8, generator=generator)
    assert exact(input, weight, 7).equal((input.long() - 7) @ weight.long().T)


def test_the_deepest_sum_fits() -> None:
    """65536 products of 255 and -128 with a zero point, of either sign: close to the end of 32 bits."""
    depth = integers.MOST_DEPTH
    weight = torch.full((1, depth), -128, dtype=torch.int8)
    packed = PackedInt8(integers.pack_int8_linear(weight), torch.ones(1))
    for value, zero_point in ((255, 0), (0, 255)):
        input = torch.full((2, depth), value, dtype=torch.uint8)
        output = int8_linear(Quantized(input, ONE, zero_point), packed, out_features=1)
        assert (output == (value - zero_point) * -128 * depth).all()


def test_known_values() -> None:
    """A scale for each row and each output, the zero point, the bias, and the ReLU."""
    input = Quantized(
        torch.tensor([[1, 2, 3], [10, 10, 12]], dtype=torch.uint8), torch.tensor([0.5, 2.0]), 10
    )
    weight = torch.tensor([[1, 0, -1], [4, 4, 4]], dtype=torch.int8)
    packed = PackedInt8(integers.pack_int8_linear(weight), torch.tensor([1.0, 0.25]))
    bias = torch.tensor([100.0, 0.5])
    assert int8_linear(input, packed, bias, out_features=2).tolist() == [[99.0, -11.5], [96.0, 4.5]]
    assert int8_linear(input, packed, bias, out_features=2, relu=True).tolist() == [[99.0, 0.0], [96.0, 4.5]]


def test_the_footer_of_a_panel() -> None:
    weight = torch.zeros(17, 12, dtype=torch.int8)
    weight[3, :6] = torch.tensor([100, 27, -5, -7, 50, 60])
    weight[16, 8:10] = torch.tensor([-128, -128])
    footers = integers.pack_int8_linear(weight)[:, -128:].contiguous().view(torch.int32)
    assert footers[0, :18].tolist() == [0, 0, 0, 225] + [0] * 12 + [127, 237]
    assert footers[1, :18].tolist() == [-256] + [0] * 15 + [256, 256]


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (1, 1), (16, 16), (33, 4), (0, 3), (3, 0)])
def test_unpacking_gives_the_weights_back(rows: int, columns: int) -> None:
    weight = torch.randint(-128, 128, (rows, columns), dtype=torch.int8)
    packed = integers.pack_int8_linear(weight)
    assert packed.shape == integers.int8_linear_shape(rows, columns)
    assert integers.unpack_int8_linear(packed, rows, columns).equal(weight)


def test_nan_in_the_scale_of_a_row_spoils_it_only() -> None:
    packed = PackedInt8(integers.pack_int8_linear(torch.ones(3, 8, dtype=torch.int8)), torch.ones(3))
    input = Quantized(torch.ones(2, 8, dtype=torch.int8), torch.tensor([float("nan"), 1.0]))
    output = int8_linear(input, packed, out_features=3, relu=True)
    assert output[0].isnan().all()
    assert (output[1] == 8).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_is_refused(value: float) -> None:
    packed = PackedInt8(
        integers.pack_int8_linear(torch.ones(2, 8, dtype=torch.int8)), torch.tensor([1.0, value])
    )
    with pytest.raises(RuntimeError, match="int8_linear: scale must be finite"):
        int8_linear(Quantized(torch.ones(1, 8, dtype=torch.int8), ONE), packed, out_features=2)


@pytest.mark.parametrize(("bits", "most"), [(8, 127), (7, 63)])
def test_rows_are_quantized_by_their_largest_magnitude(bits: int, most: int) -> None:
    input = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [1.0, float("nan"), 2.0], [1e-41, 0.0, 0.0]])
    values, scale, zero_point = quantize_int8(input, bits=bits)
    assert values.tolist() == [[round(most / 2), -most, round(most / 4)], [0] * 3, [0] * 3, [0] * 3]
    assert scale[:2].tolist() == pytest.approx([2 / most, 1.0])
    assert scale[2].isnan()
    assert scale[3] == 1
    assert zero_point == 0


@pytest.mark.parametrize("shape", [(3, 5), (1, 20001), (0, 4), (4, 0), (2, 8192)])
@pytest.mark.parametrize("bits", [7, 8])
def test_quantizing_is_the_reference(shape: tuple[int, int], bits: int) -> None:
    input = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    values, scale, _ = quantize_int8(input, bits=bits)
    expected = reference.quantize_int8(input, bits)
    assert values.equal(expected[0])
    assert scale.equal(expected[1])
    assert values.dtype == torch.int8


def test_channels_are_quantized_as_rows_are() -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(3))
    values, scale = integers.quantize_channels(weight)
    rows, row_scale = integers.quantize_channels(weight.flatten(1))
    assert values.flatten(1).equal(rows)
    assert scale.equal(row_scale)
    assert integers.quantize_channels(weight, 7)[0].abs().amax((1, 2, 3)).tolist() == [63] * 6


def test_registration_is_complete() -> None:
    weight = integers.pack_int8_linear(torch.ones(18, 5, dtype=torch.int8))
    input = torch.ones(2, 3, 5, dtype=torch.uint8)
    arguments = (input, weight, torch.ones(18), torch.ones(6), 3, torch.zeros(18), 18, True)
    torch.library.opcheck(torch.ops.leanmark.int8_linear.default, arguments)
    torch.library.opcheck(torch.ops.leanmark.quantize_int8.default, (torch.ones(3, 5), 8))
    dynamic = (torch.ones(2, 3, 5), weight, torch.ones(18), torch.zeros(18), 7, 18, True)
    torch.library.opcheck(torch.ops.leanmark.int8_dynamic_linear.default, dynamic)


@pytest.mark.parametrize("shape", [(1, 9), (2, 3, 16), (13, 9000), (0, 4), (4, 0), (7,)])
@pytest.mark.parametrize("bits", [7, 8])
def test_rounding_on_the_way_is_rounding_first(shape: tuple[int, ...], bits: int) -> None:
    generator = torch.Generator().manual_seed(4)
    input = torch.randn(shape, generator=generator)
    weight = torch.randint(-128, 128, (20, shape[-1]), dtype=torch.int8, generator=generator)
    packed = PackedInt8(integers.pack_int8_linear(weight), torch.rand(20, generator=generator))
    bias = torch.randn(20, generator=generator)
    rounded = quantize_int8(input.reshape(input.shape[:-1].numel(), shape[-1]), bits=bits)
    expected = int8_linear(rounded, packed, bias, out_features=20, relu=True)
    output = int8_dynamic_linear(input, packed, bias, out_features=20, bits=bits, relu=True)
    assert output.equal(expected.reshape(*shape[:-1], 20))


def test_nan_in_a_row_spoils_it_only_when_rounded_on_the_way() -> None:
    input = torch.ones(3, 8)
    input[1, 2] = float("nan")
    packed = PackedInt8(integers.pack_int8_linear(torch.ones(3, 8, dtype=torch.int8)), torch.ones(3))
    output = int8_dynamic_linear(input, packed, out_features=3)
    assert output[1].isnan().all()
    assert ((output[[0, 2]] - 8).abs() < 1e-5).all()


X, W, S = torch.zeros(2, 5, dtype=torch.int8), torch.zeros(18, 5, dtype=torch.int8), torch.ones(18)
P, F = integers.pack_int8_linear(W), torch.zeros(2, 5)


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
        ({"zero_point": 128}, {}, {}, ValueError, "zero_point is 128; it must be from -128 to 127"),
        (
            {"zero_point": -1, "values": X.byte()},
            {},
            {},
            ValueError,
            "zero_point is -1; it must be from 0 to 255",
        ),
        (
            {"scale": ONE.double()},
            {},
            {},
            TypeError,
            "input_scale is torch.float64; it must be torch.float32",
        ),
        ({"scale": S}, {}, {}, ValueError, r"input_scale is \[18\]; it must be \[1\] or \[rows\] = \[2\]"),
        ({"values": X[0, 0]}, {}, {}, ValueError, r"input is \[\]; it must be \[\*, K\] with K up to 65536"),
        ({"values": X[:, :0]}, {}, {}, ValueError, r"weight is \[2, 256\]; it must be \[2, 128\]"),
        ({}, {"weight": P.byte()}, {}, TypeError, "weight is torch.uint8; it must be torch.int8"),
        ({}, {"weight": P[:1]}, {}, ValueError, r"weight is \[1, 256\]; it must be \[2, 256\]"),
        ({}, {"scale": S.half()}, {}, TypeError, "scale is torch.float16; it must be torch.float32"),
        ({}, {"scale": S[:3]}, {}, ValueError, r"scale is \[3\]; it must be \[18\]"),
        ({}, {"weight": P.to("meta")}, {}, ValueError, "weight is on meta; it must be on cpu"),
        ({}, {}, {"bias": S[:3]}, ValueError, r"bias is \[3\]; it must be \[18\] or None"),
        ({}, {}, {"bias": S.int()}, TypeError, "bias is torch.int32; it must be torch.float32"),
        ({}, {}, {"out_features": 33}, ValueError, r"weight is \[2, 256\]; it must be \[3, 256\]"),
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
    with pytest.raises(error, match=f"int8_linear: {message}"):
        int8_linear(quantized, packed, **{"bias": S, "out_features": 18, **changed})


@pytest.mark.parametrize(
    ("input", "weight", "changed", "error", "message"),
    [
        (X, {}, {}, TypeError, "input is torch.int8; it must be torch.float32"),
        (F[0, 0], {}, {}, ValueError, r"input is \[\]; it must be \[\*, K\] with K up to 65536"),
        (F[:, :0], {}, {}, ValueError, r"weight is \[2, 256\]; it must be \[2, 128\]"),
        (F, {"weight": P.byte()}, {}, TypeError, "weight is torch.uint8; it must be torch.int8"),
        (F, {"scale": S[:3]}, {}, ValueError, r"scale is \[3\]; it must be \[18\]"),
        (F, {"weight": P.to("meta")}, {}, ValueError, "weight is on meta; it must be on cpu"),
        (F, {}, {"bias": S[:3]}, ValueError, r"bias is \[3\]; it must be \[18\] or None"),
        (F, {}, {"bias": S.to("meta")}, ValueError, "bias is on meta; it must be on cpu"),
        (F, {}, {"out_features": 33}, ValueError, r"weight is \[2, 256\]; it must be \[3, 256\]"),
        (F, {}, {"bits": 6}, ValueError, "bits is 6; it must be 7 or 8"),
        (F, {"scale": S / 0}, {}, RuntimeError, "scale must be finite"),
    ],
)
def test_mistakes_are_explained_when_rounding_on_the_way(
    input: Tensor,
    weight: dict[str, Tensor],
    changed: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    packed = PackedInt8(P, S)._replace(**weight)
    with pytest.raises(error, match=f"int8_(dynamic_)?linear: {message}"):
        int8_dynamic_linear(input, packed, **{"bias": S, "out_features": 18, **changed})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: integers.pack_int8_linear(W.int()),
            TypeError,
            "weight is torch.int32; it must be torch.int8",
        ),
        (lambda: integers.pack_int8_linear(W[0]), ValueError, r"weight is \[5\]; it must be \[N, K\]"),
        (
            lambda: integers.pack_int8_linear(W[:1, :1].expand(1, 65537)),
            ValueError,
            "K must be at most 65536",
        ),
        (lambda: integers.quantize_channels(S), ValueError, r"weight is \[18\]; it must be \[N, ...\]"),
        (
            lambda: integers.quantize_channels(S[None] / 0),
            ValueError,
            "weight has 18 of 18 values that are NaN",
        ),
        (lambda: integers.quantize_channels(S[None], 6), ValueError, "bits is 6; it must be 7 or 8"),
        (lambda: quantize_int8(S), ValueError, r"input is \[18\]; it must be \[R, K\]"),
        (
            lambda: quantize_int8(S[None].half()),
            TypeError,
            "input is torch.float16; it must be torch.float32",
        ),
        (lambda: quantize_int8(S[None], bits=9), ValueError, "bits is 9; it must be 7 or 8"),
    ],
)
def test_what_cannot_be_packed_or_rounded(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
@pytest.mark.parametrize(
    "arguments",
    [
        (X.int(), P, S, ONE, 0, S, 18, True),
        (X[0, 0], P, S, ONE, 0, S, 18, True),
        (X[:, :0], P, S, ONE, 0, S, 18, True),
        (X, P[:1], S, ONE, 0, S, 18, True),
        (X, P.int(), S, ONE, 0, S, 18, True),
        (X, P, S[:3], ONE, 0, S, 18, True),
        (X, P, S, S[:3], 0, S, 18, True),
        (X, P, S, ONE, 128, S, 18, True),
        (X, P, S, ONE, 0, S[:3], 18, True),
        (X, P, S, ONE, 0, None, 33, True),
    ],
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[Tensor | int | None, ...]) -> None:
    with pytest.raises(RuntimeError, match="int8_linear: "):
        torch.ops.leanmark.int8_linear(*arguments)


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
@pytest.mark.parametrize(
    "arguments",
    [
        (X, P, S, S, 8, 18, True),
        (F[0, 0], P, S, S, 8, 18, True),
        (F[:, :0], P, S, S, 8, 18, True),
        (F, P[:1], S, S, 8, 18, True),
        (F, P.int(), S, S, 8, 18, True),
        (F, P, S[:3], S, 8, 18, True),
        (F, P, S, S[:3], 8, 18, True),
        (F, P, S, S, 9, 18, True),
        (F, P, S, None, 8, 33, True),
    ],
)
def test_direct_calls_on_floats_never_read_stray_memory(arguments: tuple[Tensor | int | None, ...]) -> None:
    with pytest.raises(RuntimeError, match="int8_dynamic_linear: "):
        torch.ops.leanmark.int8_dynamic_linear(*arguments)
