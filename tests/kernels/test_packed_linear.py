"""``leanmark::packed_linear`` and the packing of its weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import integer_packing, packed_linear, packing


def packed(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    if dtype == torch.int8:
        weight, scale = integer_packing.quantize_channels(weight)
        return packing.pack_linear(weight), scale
    return packing.pack_linear(weight.to(dtype)), None


@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float32, 2e-6), (torch.float16, 1e-3), (torch.bfloat16, 4e-3), (torch.int8, 1e-2)],
)
def test_error_against_the_weights_before_rounding(dtype: torch.dtype, bound: float) -> None:
    """Relative to the largest output: fp32 exact to rounding, 16 and 8 bits as coarse as their weights."""
    generator = torch.Generator().manual_seed(1)
    input = torch.randn(4, 1024, generator=generator)
    weight = torch.randn(300, 1024, generator=generator) / 32
    bias = torch.randn(300, generator=generator)
    exact = F.linear(input.double(), weight.double(), bias.double())
    actual = packed_linear(input, *packed(weight, dtype), bias, out_features=300)
    assert (actual - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize("dtype", packing.LINEAR_DTYPES)
def test_known_values(dtype: torch.dtype) -> None:
    weight = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 1.0]]).to(dtype)
    output = packed_linear(
        torch.tensor([[1.0, 10.0, 100.0], [0.5, 0.0, 0.0]]),
        packing.pack_linear(weight),
        torch.tensor([2.0, 1.0]),
        torch.tensor([0.25, 0.0]),
        out_features=2,
        relu=True,
    )
    assert output.tolist() == [[642.25, 96.0], [1.25, 0.0]]


@pytest.mark.parametrize("dtype", packing.LINEAR_DTYPES)
@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (1, 1), (16, 16), (33, 4), (0, 3), (3, 0)])
def test_unpacking_gives_the_weights_back(dtype: torch.dtype, rows: int, columns: int) -> None:
    weight = torch.randint(-100, 100, (rows, columns), generator=torch.Generator().manual_seed(2)).to(dtype)
    packed_weight = packing.pack_linear(weight)
    assert packed_weight.shape == packing.linear_shape(rows, columns, dtype)
    assert packing.unpack_linear(packed_weight, rows, columns).equal(weight)


def test_every_half_precision_number_is_read_exactly() -> None:
    """Subnormal ones too; a layer of one input shows them all."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    numbers = numbers[numbers.isfinite()]
    output = packed_linear(torch.ones(1, 1), packing.pack_linear(numbers[:, None]), out_features=len(numbers))
    assert output[0].equal(numbers.float())


def test_rows_are_quantized_by_their_largest_magnitude() -> None:
    weight = torch.tensor([[127.0, -63.5, 0.4], [0.0, 0.0, 0.0], [-2.54, 1.0, 0.02]])
    integers, scale = integer_packing.quantize_channels(weight)
    assert integers.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 50, 1]]
    torch.testing.assert_close(scale, torch.tensor([1.0, 1.0, 0.02]))


def test_nan_and_infinity_pass_as_in_torch() -> None:
    weight, scale = packed(torch.ones(3, 20), torch.int8)
    input = torch.zeros(3, 20)
    input[0, 1], input[1, 2], input[2, 3] = float("nan"), float("inf"), float("-inf")
    output = packed_linear(input, weight, scale, None, out_features=3, relu=True)
    assert output[0].isnan().all()
    assert output[1].isposinf().all()
    assert (output[2] == 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_pass_in_a_single_row_of_bytes(value: float) -> None:
    weight, scale = packed(torch.ones(3, 70), torch.int8)
    input = torch.zeros(1, 70)
    input[0, 69] = value
    output = packed_linear(input, weight, scale, None, out_features=3)
    assert output.equal(torch.full((1, 3), value)) or (value != value and output.isnan().all())


@pytest.mark.parametrize("largest", [1e-42, 1e-30, 1e-5, 1.0, 3e4, 1e30])
@pytest.mark.parametrize("depth", [1, 3, 4, 63, 1025, 70000])
def test_a_single_row_of_bytes_is_exact_to_rounding(largest: float, depth: int) -> None:
    generator = torch.Generator().manual_seed(5)
    spread = torch.exp2(-8 * torch.rand(1, depth, generator=generator))  # some of it loses bits
    input = largest * spread * torch.randn(1, depth, generator=generator).clamp(-1, 1)
    weight = torch.randint(-128, 128, (70, depth), dtype=torch.int8, generator=generator)
    exact = input.double() @ weight.double().T
    size = input.double().abs() @ weight.double().abs().T
    actual = packed_linear(input, packing.pack_linear(weight), out_features=70)
    assert ((actual - exact).abs() <= 2.0**-24 * (4 + 2 * depth**0.5) * size + 2.0**-149 * depth).all()


@pytest.mark.parametrize("dtype", packing.LINEAR_DTYPES)
def test_registration_is_complete(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, scale = packed(torch.randn(18, 5, generator=generator), dtype)
    arguments = (torch.randn(2, 3, 5, generator=generator), weight, scale, torch.zeros(18), 18, True)
    torch.library.opcheck(torch.ops.leanmark.packed_linear.default, arguments)


X, W, B = torch.zeros(2, 5), packing.pack_linear(torch.zeros(18, 5)), torch.zeros(18)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": X.half()}, TypeError, "input is torch.float16; it must be torch.float32"),
        ({"weight": W.int()}, TypeError, "weight is torch.int32; it must be one of torch.float32, torch.fl"),
        ({"scale": B.double()}, TypeError, "scale is torch.float64; it must be torch.float32"),
        ({"input": X[0, 0]}, ValueError, r"input is \[\]; it must be \[\*, K\]"),
        ({"input": X[:, :4]}, ValueError, r"weight is \[2, 5, 16\]; it must be \[2, 4, 16\]"),
        ({"out_features": 33}, ValueError, r"weight is \[2, 5, 16\]; it must be \[3, 5, 16\]"),
        ({"weight": W.bfloat16()}, ValueError, r"weight is \[2, 5, 16\]; it must be \[2, 3, 16, 2\]"),
        ({"scale": B[:3]}, ValueError, r"scale is \[3\]; it must be \[18\] or None"),
        ({"bias": B[None]}, ValueError, r"bias is \[1, 18\]; it must be \[18\] or None"),
        ({"bias": B.to("meta")}, ValueError, "bias is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"packed_linear: {message}"):
        packed_linear(**{"input": X, "weight": W, "bias": B, "out_features": 18, **changed})


NAN = torch.full((18, 5), float("nan"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: packing.pack_linear(NAN), ValueError, "weight has 90 of 90 values that are NaN or infinite"),
        (
            lambda: integer_packing.quantize_channels(NAN),
            ValueError,
            "quantize_channels: weight has 90 of 90",
        ),
        (lambda: packing.pack_winograd(torch.full((1, 1, 3, 3), float("inf")), 2), ValueError, "has 9 of 9"),
        (lambda: packing.pack_linear(NAN.double()), TypeError, "weight is torch.float64; it must be one of"),
        (lambda: packing.pack_linear(NAN[0]), ValueError, r"weight is \[5\]; it must be \[N, K\]"),
        (
            lambda: integer_packing.quantize_channels(NAN.half()),
            TypeError,
            "weight is torch.float16; it must be torch.fl",
        ),
        (
            lambda: packing.pack_winograd(torch.zeros(2, 2, 3, 5), 2),
            ValueError,
            r"it must be \[O, C, 3, 3\] or",
        ),
        (lambda: packing.pack_winograd(torch.zeros(0, 2, 3, 3), 2), ValueError, "O and C at least 1"),
        (
            lambda: packing.pack_winograd(torch.zeros(2, 2, 3, 3), 2, as_stored=True),
            ValueError,
            "as_stored is given with tile 2 and stride 1; they must be 4 and 1",
        ),
        (
            lambda: packing.pack_winograd(torch.zeros(2, 2, 3, 3), 3),
            ValueError,
            "tile is 3, stride 1; tile must be 2 with stride 1 or 4 with stride 1 or 2 with stride 2",
        ),
    ],
)
def test_weights_that_cannot_be_packed(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
@pytest.mark.parametrize(
    "arguments",
    [
        (X.double(), W, None, B, 18, True),
        (X[0, 0], W, None, B, 18, True),
        (X[:, :4], W, None, B, 18, True),
        (X, W.int(), None, B, 18, True),
        (X, W.bfloat16(), None, B, 18, True),
        (X, W, B[:3], B, 18, True),
        (X, W, None, B[:3], 18, True),
        (X, W, None, None, 33, True),
    ],
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[Tensor | int | None, ...]) -> None:
    with pytest.raises(RuntimeError, match="packed_linear: "):
        torch.ops.leanmark.packed_linear(*arguments)
