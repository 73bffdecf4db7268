"""``leanmark::w4a8_linear``, the packing of its weights, and what ONNX Runtime makes of the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import integer_packing as packing
from leanmark_kernels import integer_reference as reference
from leanmark_kernels import w4a8_linear


def onnxruntime_output(input: Tensor, weight: packing.Int4Weight, bias: Tensor) -> Tensor:
    """What MatMulNBits with accuracy_level 4 computes."""
    columns, depth = weight.values.shape
    groups = weight.scale.shape[1]
    constants = {
        "w": nibbles(weight.values).view(columns, groups, depth // groups // 2).numpy(),
        "s": weight.scale.flatten().numpy(),
        "b": bias.numpy(),
    }
    if weight.zero_point is not None:
        filled = F.pad(weight.zero_point, (0, groups % 2), value=8)
        constants["z"] = nibbles(filled).flatten().numpy()
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s", "z" if "z" in constants else "", "", "b"],
        ["y"],
        domain="com.microsoft",
        K=depth,
        N=columns,
        bits=4,
        block_size=depth // groups,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (input.shape[0], columns))],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": input.numpy()})[0])


def nibbles(values: Tensor) -> Tensor:
    return values[:, 0::2] | values[:, 1::2] << 4


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 9])
def test_it_computes_what_onnxruntime_does(group: int, zero_points: bool, rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    input = torch.randn(rows, 384, generator=generator)
    weight = torch.randn(70, 384, generator=generator) / 20
    bias = torch.randn(70, generator=generator)
    integers = packing.quantize_int4(weight, group=group, zero_points=zero_points)
    expected = onnxruntime_output(input, integers, bias)
    actual = w4a8_linear(input, *packing.pack_int4(integers), bias, out_features=70)
    assert (actual - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_error_against_the_weights_before_rounding() -> None:
    """About 15 levels for a group's weights: a tenth of the output's size, and less with zero points."""
    generator = torch.Generator().manual_seed(2)
    input = torch.randn(4, 1024, generator=generator)
    weight = torch.rand(100, 1024, generator=generator) - 0.2
    exact = F.linear(input.double(), weight.double())
    errors = []
    for zero_points in (False, True):
        packed = packing.pack_int4(packing.quantize_int4(weight, zero_points=zero_points))
        output = w4a8_linear(input, *packed, out_features=100)
        errors.append(float((output - exact).norm() / exact.norm()))
    assert errors[1] < errors[0] < 0.15
    assert errors[1] < 0.08


def test_known_values() -> None:
    """Everything fits its grid exactly: 127 and 254 are 127 times a scale of 1 and 2."""
    input = torch.zeros(2, 32)
    input[0, :2], input[1, 31] = torch.tensor([127.0, -3.0]), 254.0
    weight = torch.zeros(3, 32)
    weight[0, :2], weight[1, 31], weight[2, 5] = torch.tensor([-8.0, 7.0]), -16.0, -8.0
    packed = packing.pack_int4(packing.quantize_int4(weight))
    bias = torch.tensor([0.5, 10.0, -1.0])
    output = w4a8_linear(input, *packed, bias, out_features=3)
    assert output.tolist() == [[-1036.5, 10.0, -1.0], [0.5, -4054.0, -1.0]]
    assert w4a8_linear(input, *packed, bias, out_features=3, relu=True).tolist() == [
        [0.0, 10.0, 0.0],
        [0.5, 0.0, 0.0],
    ]


def test_weights_are_quantized_as_the_blockwise_quantizer_does() -> None:
    weight = torch.zeros(2, 32)
    weight[0, :4] = torch.tensor([4.0, -3.0, 0.26, 0.0])
    weight[1, :3] = torch.tensor([-1.0, 2.0, 0.26])
    values, scale, zero_point = packing.quantize_int4(weight)
    assert scale.tolist() == [[-0.5], [-0.25]]
    assert values[0, :5].tolist() == [0, 14, 7, 8, 8]
    assert values[1, :4].tolist() == [12, 0, 7, 8]
    assert zero_point is None
    values, scale, zero_point = packing.quantize_int4(weight, zero_points=True)
    torch.testing.assert_close(scale, torch.tensor([[7 / 15], [0.2]]))
    assert zero_point is not None and zero_point.tolist() == [[6], [5]]
    assert values[1, :4].tolist() == [0, 15, 6, 5]


@pytest.mark.parametrize("zero_points", [False, True])
def test_zeros_keep_a_scale_of_one(zero_points: bool) -> None:
    values, scale, _ = packing.quantize_int4(torch.zeros(2, 64), zero_points=zero_points)
    assert (values == 8).all()
    assert (scale == 1).all()


@pytest.mark.parametrize(("rows", "depth"), [(5, 64), (1, 32), (16, 96), (33, 128), (0, 32), (3, 0)])
def test_unpacking_gives_the_weights_back(rows: int, depth: int) -> None:
    values = torch.randint(0, 16, (rows, depth), dtype=torch.uint8)
    packed = packing.pack_int4(packing.Int4Weight(values, torch.ones(rows, depth // 32), None))
    assert packing.unpack_int4(packed.weight, rows).equal(values.to(torch.int8) - 8)


@pytest.mark.parametrize("depth", [32768, 65536])
def test_huge_depth(depth: int) -> None:
    generator = torch.Generator().manual_seed(3)
    input = torch.randn(2, depth, generator=generator)
    packed = packing.pack_int4(packing.quantize_int4(torch.randn(17, depth, generator=generator), group=64))
    expected = reference.w4a8_linear(input, *packed, None, 17, False)
    actual = w4a8_linear(input, *packed, out_features=17)
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_nan_and_infinity_spoil_their_row_only(rows: int) -> None:
    packed = packing.pack_int4(packing.quantize_int4(torch.ones(3, 64)))
    input = torch.ones(rows, 64)
    for value in (float("nan"), float("inf"), float("-inf")):
        input[0, 40] = value
        output = w4a8_linear(input, *packed, out_features=3)
        assert output[0].isnan().all()
        assert (output[1:] == 64).all()
        assert reference.w4a8_linear(input, *packed, None, 3, False).isnan().equal(output.isnan())


def test_numbers_whose_reciprocal_overflows_count_as_zeros() -> None:
    packed = packing.pack_int4(packing.quantize_int4(torch.ones(1, 32)))
    assert w4a8_linear(torch.full((1, 32), 1e-40), *packed, out_features=1).item() == 0
    assert w4a8_linear(torch.full((1, 32), 2.0**-118), *packed, out_features=1).item() == pytest.approx(
        32 * 2.0**-118
    )


def test_strided_input_and_leading_dimensions() -> None:
    generator = torch.Generator().manual_seed(4)
    packed = packing.pack_int4(packing.quantize_int4(torch.randn(9, 64, generator=generator)))
    input = torch.randn(2, 3, 128, generator=generator)[..., ::2]
    output = w4a8_linear(input, *packed, out_features=9)
    assert output.shape == (2, 3, 9)
    assert output.equal(w4a8_linear(input.contiguous().view(6, 64), *packed, out_features=9).view(2, 3, 9))


@pytest.mark.parametrize("zero_points", [False, True])
def test_registration_is_complete(zero_points: bool) -> None:
    packed = packing.pack_int4(packing.quantize_int4(torch.ones(18, 64), zero_points=zero_points))
    arguments = (torch.ones(2, 3, 64), *packed, torch.zeros(18), 18, True)
    torch.library.opcheck(torch.ops.leanmark.w4a8_linear.default, arguments)


def test_backward_is_refused() -> None:
    packed = packing.pack_int4(packing.quantize_int4(torch.ones(3, 32)))
    output = w4a8_linear(torch.ones(2, 32, requires_grad=True), *packed, out_features=3)
    with pytest.raises(NotImplementedError, match="w4a8_linear has no gradient.*torch.no_grad"):
        output.sum().backward()


X, B = torch.zeros(2, 64), torch.zeros(18)
W, S, Z = packing.pack_int4(packing.quantize_int4(torch.zeros(18, 64), zero_points=True))
assert Z is not None


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": X.half()}, TypeError, "input is torch.float16; it must be torch.float32"),
        ({"weight": W.int()}, TypeError, "weight is torch.int32; it must be torch.uint8"),
        ({"scale": S.double()}, TypeError, "scale is torch.float64; it must be torch.float32"),
        ({"zero": Z.half()}, TypeError, "zero is torch.float16; it must be torch.float32"),
        ({"input": X[0, 0]}, ValueError, r"input is \[\]; it must be \[\*, K\]"),
        (
            {"input": X[:, :48]},
            ValueError,
            r"input is \[2, 48\]; its last dimension must be a multiple of 32",
        ),
        ({"input": X[:, :32]}, ValueError, r"weight is \[2, 8, 16, 4\]; it must be \[2, 4, 16, 4\]"),
        ({"out_features": 33}, ValueError, r"weight is \[2, 8, 16, 4\]; it must be \[3, 8, 16, 4\]"),
        ({"scale": S[:1]}, ValueError, r"scale is \[1, 2, 16\]; it must be \[2, groups, 16\]"),
        ({"scale": S[:, :0]}, ValueError, r"scale is \[2, 0, 16\]; it must be \[2, groups, 16\]"),
        ({"scale": S.repeat(1, 2, 1)}, ValueError, ".*its 4 groups must cut K = 64 into multiples of 32"),
        ({"zero": Z[:, :1]}, ValueError, r"zero is \[2, 1, 16\]; it must be \[2, 2, 16\], as scale, or None"),
        ({"bias": B[:3]}, ValueError, r"bias is \[3\]; it must be \[18\] or None"),
        ({"weight": W.to("meta")}, ValueError, "weight is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    legal: dict[str, Any] = {"input": X, "weight": W, "scale": S, "zero": Z, "bias": B, "out_features": 18}
    with pytest.raises(error, match=f"w4a8_linear: {message}"):
        w4a8_linear(**{**legal, **changed})


NAN = torch.full((18, 64), float("nan"))
INTEGERS = packing.quantize_int4(torch.zeros(18, 64), zero_points=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: packing.quantize_int4(NAN), ValueError, "weight has 1152 of 1152 values that are NaN"),
        (
            lambda: packing.quantize_int4(NAN.half()),
            TypeError,
            "weight is torch.float16; it must be torch.fl",
        ),
        (lambda: packing.quantize_int4(NAN[0]), ValueError, r"weight is \[64\]; it must be \[N, K\]"),
        (lambda: packing.quantize_int4(X, group=48), ValueError, "divides K = 64: one of .32, 64."),
        (lambda: packing.quantize_int4(X, group=0), ValueError, "group is 0; it must be a multiple of 32"),
        (lambda: packing.quantize_int4(X, group=96), ValueError, "group is 96; .* one of .32, 64."),
        (
            lambda: packing.quantize_int4(X[:, :40]),
            ValueError,
            "there is none, so K must be a multiple of 32",
        ),
        (
            lambda: packing.pack_int4(INTEGERS._replace(scale=INTEGERS.scale / 0 * 0)),
            ValueError,
            "scale has 36 of 36 values that are NaN or infinite",
        ),
        (
            lambda: packing.pack_int4(INTEGERS._replace(scale=INTEGERS.scale.double())),
            TypeError,
            "scale is torch.float64; it must be torch.float32",
        ),
        (
            lambda: packing.pack_int4(INTEGERS._replace(scale=INTEGERS.scale.repeat(1, 2))),
            ValueError,
            "the groups of scale must cut K = 64 into multiples of 32",
        ),
        (
            lambda: packing.pack_int4(INTEGERS._replace(scale=INTEGERS.scale[:3])),
            ValueError,
            r"scale is \[3, 2\]; it must be \[18, K / group\]",
        ),
        (
            lambda: packing.pack_int4(INTEGERS._replace(zero_point=INTEGERS.values[:, :1])),
            ValueError,
            r"zero_point is \[18, 1\]; it must be \[18, 2\]",
        ),
        (
            lambda: packing.pack_int4(INTEGERS._replace(values=INTEGERS.values + 8)),
            ValueError,
            "values go up to 16; they must be from 0 to 15",
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
        (X.double(), W, S, Z, B, 18, True),
        (X[0, 0], W, S, Z, B, 18, True),
        (X[:, :32], W, S, Z, B, 18, True),
        (X, W.int(), S, Z, B, 18, True),
        (X, W, S.double(), Z, B, 18, True),
        (X, W, S[:, :0], None, B, 18, True),
        (X, W, S.repeat(1, 2, 1), None, B, 18, True),
        (X, W, S, Z[:1], B, 18, True),
        (X, W, S, Z, B[:3], 18, True),
        (X, W, S, Z, None, 33, True),
    ],
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[Tensor | int | None, ...]) -> None:
    with pytest.raises(RuntimeError, match="w4a8_linear: "):
        torch.ops.leanmark.w4a8_linear(*arguments)
