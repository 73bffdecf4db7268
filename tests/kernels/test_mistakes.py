"""Mistakes of whoever meets the layers, the operators and the conversion for the first time."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import leanmark_kernels as lk
from leanmark_kernels import depthwise_packing, integer_packing, integer_reference, packing, sparse_packing
from leanmark_kernels.convert import Recipe, convert
from leanmark_kernels.integer_packing import PackedInt8, Quantized
from leanmark_kernels.ops.int8_conv2d import Geometry

OF_LINEAR: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "PackedLinear": lk.PackedLinear.from_linear,
    "W4A8Linear": lk.W4A8Linear.from_linear,
    "Int8Linear": lk.Int8Linear.from_linear,
    "SparseLinear": lk.SparseLinear.from_dense,
}
OF_CONV: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "WinogradConv2d": lk.WinogradConv2d.from_conv,
    "Int8WinogradConv2d": lk.Int8WinogradConv2d.from_conv,
    "Int8Conv2d": lk.Int8Conv2d.from_conv,
    "SparseConv2d": lk.SparseConv2d.from_dense,
    "DepthwiseConv2d": lk.DepthwiseConv2d.from_conv,
}
X, Y = torch.ones(2, 32), torch.ones(1, 16, 6, 6)
W, K = torch.ones(16, 32), torch.ones(16, 16, 3, 3)
ONE = torch.ones(1)


def own(name: str) -> Any:
    return nn.Linear(32, 16) if name in OF_LINEAR else nn.Conv2d(
        16, 16, 3, groups=16 if name == "DepthwiseConv2d" else 1
    )  # fmt: skip


@pytest.mark.parametrize("name", [*OF_LINEAR, *OF_CONV])
def test_another_layer_is_not_packed(name: str) -> None:
    """A transposed convolution has all that a convolution has, and means something else."""
    pack, kind = (OF_LINEAR | OF_CONV)[name], type(own(name)).__name__
    for other in (nn.ConvTranspose2d(16, 16, 3), nn.Conv1d(4, 4, 3), nn.Bilinear(2, 2, 2), W, None):
        given = type(other).__name__
        with pytest.raises(TypeError, match=rf"{name}: \w+ is a {given}; it must be a torch.nn.{kind}"):
            pack(other)


@pytest.mark.parametrize("name", [*OF_LINEAR, *OF_CONV])
def test_a_layer_whose_numbers_cannot_be_used_is_not_packed(name: str) -> None:
    pack, layer = (OF_LINEAR | OF_CONV)[name], own(name)
    with pytest.raises(ValueError, match="is on meta, so without values"):
        pack(own(name).to("meta"))
    layer.bias.data[3] = math.nan
    with pytest.raises(ValueError, match=r"\w+\(.*\): bias has 1 of 16 values that are NaN or infinite"):
        pack(layer)
    layer.bias = nn.Parameter(torch.zeros(16, dtype=torch.float16))
    with pytest.raises(TypeError, match=r"\w+\(.*\): bias is torch.float16; it must be torch.float32"):
        pack(layer)
    layer = own(name)
    layer.weight.data[1] = math.inf
    with pytest.raises(ValueError, match="values that are NaN or infinite; all must be finite"):
        pack(layer)


PACKERS: dict[str, Callable[[Tensor], object]] = {
    "pack_linear": packing.pack_linear,
    "pack_winograd": lambda weight: packing.pack_winograd(weight, 4),
    "pack_direct": packing.pack_direct,
    "quantize_int4": integer_packing.quantize_int4,
    "quantize_channels": integer_packing.quantize_channels,
    "pack_int8_linear": integer_packing.pack_int8_linear,
    "pack_int8_winograd": integer_packing.pack_int8_winograd,
    "pack_sparse": sparse_packing.pack_sparse,
    "pack_depthwise": depthwise_packing.pack_depthwise,
}


@pytest.mark.parametrize("name", PACKERS)
def test_only_tensors_are_packed(name: str) -> None:
    for other in (np.zeros((16, 32), np.float32), nn.Linear(2, 2), None):
        given = type(other).__name__
        with pytest.raises(TypeError, match=f"{name}: weight is a {given}; it must be a torch.Tensor"):
            PACKERS[name](other)


INT8 = Quantized(torch.ones(2, 32, dtype=torch.int8), ONE)
PACKED = PackedInt8(integer_packing.pack_int8_linear(W.to(torch.int8)), torch.ones(16))
IMAGE = Quantized(Y.to(torch.int8), ONE)
FILTERS = PackedInt8(
    integer_packing.pack_int8_linear(K.to(torch.int8).permute(0, 2, 3, 1).flatten(1))[None], torch.ones(16)
)
U, SPARSE = packing.pack_winograd(K, 4), sparse_packing.pack_sparse(K)


def conv(**changed: Any) -> Tensor:
    return lk.sparse_conv2d(Y, SPARSE, **{"out_channels": 16, "kernel_size": (3, 3), **changed})


def int8(geometry: Geometry, weight: PackedInt8 = FILTERS) -> Tensor:
    return lk.int8_conv2d(IMAGE, weight, geometry=geometry)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: lk.int8_linear(INT8[:2], PACKED, out_features=16),
            r"input is a tuple; it must be Quantized\(",
        ),
        (lambda: lk.int8_linear(X, PACKED, out_features=16), r"be Quantized\(values, scale, zero_point\)"),
        (lambda: lk.int8_linear(INT8, W, out_features=16), "weight is a Tensor; it must be PackedInt8"),
        (
            lambda: lk.int8_dynamic_linear(X, None, out_features=16),
            r"it must be PackedInt8\(weight, scale\)",
        ),
        (
            lambda: lk.sparse_linear(X, W, out_features=16),
            r"it must be SparseWeight\(values, indices",
        ),
        (
            lambda: lk.inverted_residual(Y, K, out_channels=4),
            "it must be InvertedResidualWeights",
        ),
        (
            lambda: lk.quantize_int8(np.zeros((2, 2))),
            "quantize_int8: input is a ndarray; it must be a torch.T",
        ),
        (
            lambda: lk.winograd_conv2d(Y, U, out_channels=16, padding=(1, 1)),
            r"padding is \(1, 1\); it must be on",
        ),
        (
            lambda: lk.depthwise_conv2d(Y, torch.ones(9, 16), padding=1.0),
            "padding is 1.0; it must be one whole",
        ),
        (lambda: conv(kernel_size=3), "kernel_size is 3; it must be two whole numbers, for both axes"),
        (lambda: conv(stride=1), "stride is 1; it must be two whole numbers"),
        (lambda: conv(padding=(0.5, 0)), r"padding is \(0.5, 0\); it must be two whole numbers"),
        (lambda: int8(Geometry((3, 3, 3))), r"kernel_size is \(3, 3, 3\); it must be two whole numbers"),
    ],
)
def test_arguments_of_another_kind_are_explained(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lk.int8_linear(INT8._replace(zero_point=1.5), PACKED, out_features=16), "from -128 to 127"),
        (
            lambda: int8(Geometry((3, 3)), FILTERS._replace(scale=torch.tensor(1.0))),
            r"scale is \[\]; it must be",
        ),
        (
            lambda: lk.winograd_conv2d(Y, U, out_channels=16, padding=2**63 - 1),
            "it must be at most 1048575",
        ),
        (
            lambda: lk.WinogradConv2d(4, 4, padding=2**63 - 1),
            "WinogradConv2d: padding is 9223372036854775807;",
        ),
        (
            lambda: lk.Int8WinogradConv2d(4, 4, padding=2**31),
            "padding is 2147483648; it must be at most 10485",
        ),
        (lambda: lk.DepthwiseConv2d(4, padding=-1), "DepthwiseConv2d: padding is -1; it must be 0 or more"),
        (lambda: int8(Geometry((3, 3), padding=(0, 2**63 - 1))), "it must be two numbers up to 1048575"),
        (lambda: conv(padding=(2**62, 0)), "it must be two numbers up to 1048575"),
        (
            lambda: lk.Int8Conv2d.from_conv(nn.Conv2d(4, 4, 3, padding=2**63 - 1)),
            r"Int8Conv2d: padding is \[92233",
        ),
        (lambda: lk.SparseConv2d(4, 4, (17, 17)), "kernel_size has 289 taps; they must be at most 256"),
    ],
)
def test_values_that_are_not_legal_are_explained(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("groups", [1, 2])
def test_no_channels_leave_the_bias(groups: int) -> None:
    nothing = integer_packing.pack_int8_linear(torch.zeros(4 // groups, 0, dtype=torch.int8))
    arguments = (
        torch.zeros(2, 0, 5, 6, dtype=torch.int8), nothing.expand(groups, -1, -1), torch.ones(4), ONE, 3,
        torch.arange(4.0), [3, 2, 1, 2, 0, 0, 1, 1], False,
    )  # fmt: skip
    expected = torch.arange(4.0)[None, :, None, None].expand(2, 4, 3, 3)
    assert integer_reference.int8_conv2d(*arguments).equal(expected)
    assert torch.ops.leanmark.int8_conv2d(*arguments).equal(expected)


def test_a_model_that_is_not_of_float32_is_not_converted() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        with pytest.raises(
            TypeError, match=f"'weight' is {dtype}; it must be torch.float32: call model.float"
        ):
            convert(nn.Linear(32, 16).eval().to(dtype), X.to(dtype))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: convert(m, X, "w8"), TypeError, "recipe is a str; it must be a Recipe, or None"),
        (
            lambda m: convert(m, X * math.nan),
            ValueError,
            "convert: example 0 has 64 of 64 values that are NaN",
        ),
        (
            lambda m: Recipe(cache="folder"),
            TypeError,
            "cache is 'folder'; it must be a pathlib.Path, or None",
        ),
    ],
)
def test_conversions_that_cannot_be(
    call: Callable[[nn.Module], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(nn.Linear(32, 16).eval())


def test_sizes_beyond_reason_are_refused_by_the_operators_themselves() -> None:
    """Those who call torch.ops have no Python entry in front; 2 * padding would leave 64 bits."""
    ops, far = torch.ops.leanmark, 2**63 - 1
    nine, taps, window = Y.new_ones(9, 16), torch.ones(1, 144, 16), (3, 3, 1, 1, far, 0)
    signs, packed8 = IMAGE.values, integer_packing.pack_int8_winograd(K.to(torch.int8))
    calls: list[Callable[[], object]] = [
        lambda: ops.winograd_conv2d(Y, U, None, None, 16, far, 1, False),
        lambda: ops.int8_winograd_conv2d(signs, packed8, ONE.repeat(16), ONE, 0, None, None, 16, far, False),
        lambda: ops.int8_conv2d(signs, *FILTERS, ONE, 0, None, (*window, 1, 1), False),
        lambda: ops.sparse_conv2d(Y, *SPARSE[:3], None, None, 16, (*window, 1, 1), False),
        lambda: ops.direct_conv2d(Y, taps, None, None, 16, window, 0),
        lambda: ops.depthwise_conv2d(Y, nine, None, 1, far, 0),
        lambda: ops.max_pool2d(Y, window),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="padding must be 0 to 1048575|padding 0 to 1048575"):
            call()
