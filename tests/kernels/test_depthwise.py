"""``leanmark::depthwise_conv2d`` and ``leanmark::inverted_residual``, and their layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import DepthwiseConv2d, InvertedResidual, depthwise_conv2d, inverted_residual, packing
from leanmark_kernels.depthwise_packing import pack_depthwise, unpack_depthwise
from leanmark_kernels.ops.inverted_residual import InvertedResidualWeights

needs_native = pytest.mark.skipif(
    not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}"
)


def conv(channels: int = 20, **changed: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    options = {"kernel_size": 3, "padding": 1, "groups": channels, **changed}
    return nn.Conv2d(channels, channels, **options)


def block(stride: int = 1, out: int = 6, bias: bool = True) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(2)
    return (
        nn.Conv2d(6, 20, 1, bias=bias),
        conv(20, stride=stride, bias=bias),
        nn.Conv2d(20, out, 1, bias=bias),
    )


def test_known_values() -> None:
    """Ones under a window of ones: nine in the middle, six at an edge, four in a corner, cut off at six."""
    weight, image = pack_depthwise(torch.ones(1, 1, 3, 3)), torch.ones(1, 1, 3, 3)
    output = depthwise_conv2d(image, weight, torch.tensor([-5.0]), activation="relu")
    assert output[0, 0].tolist() == [[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]
    assert depthwise_conv2d(image, weight, activation="relu6")[0, 0].tolist() == [
        [4, 6, 4],
        [6, 6, 6],
        [4, 6, 4],
    ]
    assert depthwise_conv2d(-image, weight, stride=2)[0, 0].tolist() == [[-4.0, -4.0], [-4.0, -4.0]]


def test_unpacking_gives_the_weights_back() -> None:
    weight = torch.randn(20, 1, 3, 3, generator=torch.Generator().manual_seed(3))
    assert unpack_depthwise(pack_depthwise(weight)).equal(weight)


def test_nan_reaches_the_windows_that_hold_it_and_no_others() -> None:
    image = torch.zeros(1, 20, 9, 9)
    image[0, 5, 4, 4] = float("nan")
    weight = pack_depthwise(torch.ones(20, 1, 3, 3))
    output = depthwise_conv2d(image, weight, activation="relu6")
    assert output[0, 5, 3:6, 3:6].isnan().all()
    assert output.isnan().sum() == 9


@needs_native
@pytest.mark.parametrize("shape", [(3, 6, 13, 9), (1, 6, 50, 61)])
@pytest.mark.parametrize("stride", [1, 2])
def test_threads_do_not_change_a_bit(shape: tuple[int, ...], stride: int) -> None:
    """Small images are shared out by their channels, large ones by their rows, tile after tile."""
    input = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(5)
    layers = (nn.Conv2d(6, 70, 1), conv(70, stride=stride), nn.Conv2d(70, 6, 1))
    layer = InvertedResidual.from_convs(*layers, residual=stride == 1)
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outputs.append(layer(input))
    finally:
        torch.set_num_threads(before)
    assert outputs[0].equal(outputs[1])
    assert outputs[0].equal(outputs[2])


@pytest.mark.parametrize(
    "changed", [{}, {"bias": False, "stride": 2}, {"padding": 0}, {"padding": "same"}, {"padding": "valid"}]
)
def test_depthwise_computes_what_it_was_made_from(changed: dict[str, Any]) -> None:
    original = conv(**changed)
    layer = DepthwiseConv2d.from_conv(original, activation="relu6")
    input = 20 * torch.randn(2, 20, 8, 7, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(layer(input), F.relu6(original(input)), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("stride", "out", "residual"), [(1, 6, True), (1, 9, False), (2, 6, False)])
@pytest.mark.parametrize("bias", [True, False])
def test_block_computes_what_it_was_made_from(stride: int, out: int, residual: bool, bias: bool) -> None:
    expand, depthwise, project = block(stride, out, bias)
    layer = InvertedResidual.from_convs(expand, depthwise, project, residual=residual)
    input = 10 * torch.randn(2, 6, 15, 14, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        expected = project(F.relu6(depthwise(F.relu6(expand(input))))) + (input if residual else 0)
        torch.testing.assert_close(layer(input), expected, atol=2e-5, rtol=0)
        narrow = InvertedResidual.from_convs(None, depthwise, project)
        hidden = expand(input)
        expected = project(F.relu6(depthwise(hidden)))
        torch.testing.assert_close(narrow(hidden), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"groups": 4}, "groups is 4; .*one filter per channel"),
        ({"kernel_size": 5}, r"kernel_size is \(5, 5\); it must be \(3, 3\)"),
        ({"stride": 3}, r"stride is \(3, 3\); it must be \(1, 1\) or \(2, 2\)"),
        ({"dilation": 2}, r"dilation is \(2, 2\); it must be \(1, 1\)"),
        ({"padding_mode": "reflect"}, "padding_mode is reflect; it must be zeros"),
        ({"padding": (1, 0)}, r"padding is \(1, 0\); it must be the same on both axes"),
        ({"dtype": torch.float64}, "weight is torch.float64; it must be torch.float32"),
    ],
)
def test_what_stays_with_torch(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"DepthwiseConv2d cannot replace .*{reason}. Keep torch's layer"):
        DepthwiseConv2d.from_conv(conv(**changed))


def test_blocks_that_stay_with_torch() -> None:
    expand, depthwise, project = block(stride=2)
    for layers, residual, reason in (
        ((expand, depthwise, project), True, "residual is True; it needs stride 1"),
        ((conv(), depthwise, project), False, "it must be a 1x1 convolution"),
        ((expand, conv(padding=0), project), False, r"padding of depthwise is \(0, 0\); it must be \(1, 1\)"),
        ((expand, conv(20, dilation=2), project), False, r"depthwise: dilation is \(2, 2\)"),
        ((expand, conv(8), project), False, "must have the same hidden channels"),
    ):
        with pytest.raises(ValueError, match=f"InvertedResidual cannot replace .*{reason}"):
            InvertedResidual.from_convs(*layers, residual=residual)


X, W, B = torch.zeros(2, 20, 5, 5), torch.zeros(9, 20), torch.zeros(20)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": X.double()}, TypeError, "input is torch.float64; it must be torch.float32"),
        ({"weight": W.half()}, TypeError, "weight is torch.float16; it must be torch.float32"),
        ({"weight": W[:8]}, ValueError, r"weight is \[8, 20\]; it must be \[9, C\]"),
        ({"input": X[:, :4]}, ValueError, r"input is \[2, 4, 5, 5\]; it must be \[N, 20, H, W\]"),
        ({"stride": 3}, ValueError, "stride is 3; it must be 1 or 2"),
        ({"padding": -1}, ValueError, "padding is -1; it must be 0 or more"),
        ({"input": X[:, :, :2], "padding": 0}, ValueError, "height and width must be at least 3"),
        ({"bias": B[1:]}, ValueError, r"bias is \[19\]; it must be \[20\] or None"),
        ({"activation": "gelu"}, ValueError, "activation is 'gelu'; it must be one of none, relu, relu6"),
        ({"bias": B.to("meta")}, ValueError, "bias is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"depthwise_conv2d: .*{message}"):
        depthwise_conv2d(**{"input": X, "weight": W, "bias": B, **changed})


EXPAND = packing.pack_linear(torch.zeros(20, 6))
WEIGHTS = InvertedResidualWeights(EXPAND, B, W, B, packing.pack_linear(torch.zeros(6, 20)), torch.zeros(6))
IMAGE = torch.zeros(1, 6, 5, 5)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"expand": EXPAND.half()}, TypeError, "expand is torch.float16; it must be torch.float32"),
        ({"expand": EXPAND[:1]}, ValueError, r"expand is \[1, 6, 16\]; it must be \[2, 6, 16\]"),
        ({"project": EXPAND}, ValueError, r"project is \[2, 6, 16\]; it must be \[1, 20, 16\]"),
        ({"expand": None}, ValueError, "expand is None; hidden is 20 and must then be C 6"),
        ({"depthwise": W[:8]}, ValueError, r"depthwise is \[8, 20\]; it must be \[9, hidden\]"),
        ({"project_bias": B}, ValueError, r"project_bias is \[20\]; it must be \[6\] or None"),
    ],
)
def test_mistakes_of_a_block_are_explained(
    changed: dict[str, Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"inverted_residual: .*{message}"):
        inverted_residual(IMAGE, WEIGHTS._replace(**changed), out_channels=6)


def test_steps_of_a_block_are_checked() -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"stride": 3}, "stride is 3; it must be 1 or 2"),
        ({"stride": 2, "residual": True}, "residual is True; it must be False"),
        ({"out_channels": 0}, "out_channels is 0; it must be at least 1"),
    ]
    for steps, message in mistakes:
        with pytest.raises(ValueError, match=message):
            inverted_residual(IMAGE, WEIGHTS, **{"out_channels": 6, **steps})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pack_depthwise(torch.zeros(4, 1, 3, 3).half()), TypeError, "weight is torch.float16"),
        (lambda: pack_depthwise(torch.zeros(4, 2, 3, 3)), ValueError, r"it must be \[C, 1, 3, 3\]"),
        (lambda: pack_depthwise(torch.full((1, 1, 3, 3), float("inf"))), ValueError, "has 9 of 9 values"),
        (
            lambda: DepthwiseConv2d(4, activation="gelu"),  # type: ignore[arg-type]
            ValueError,
            "activation is 'gelu'; it must be one of",
        ),
    ],
)
def test_weights_that_cannot_be_packed(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_registration_is_complete() -> None:
    arguments = (torch.randn(2, 20, 6, 5), W, B, 2, 1, 2)
    torch.library.opcheck(torch.ops.leanmark.depthwise_conv2d.default, arguments)
    torch.library.opcheck(torch.ops.leanmark.inverted_residual.default, (IMAGE, *WEIGHTS, 6, 1, True))


@needs_native
@pytest.mark.parametrize(
    "arguments",
    [
        (X.double(), W, B, 1, 1, 0),
        (X[0], W, B, 1, 1, 0),
        (X, W[:8], B, 1, 1, 0),
        (X[:, :4], W, B, 1, 1, 0),
        (X, W, B[1:], 1, 1, 0),
        (X, W, B, 3, 1, 0),
        (X, W, B, 1, -1, 0),
        (X, W, B, 1, 1, 3),
        (X[:, :, :2], W, B, 1, 0, 0),
    ],
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[object, ...]) -> None:
    with pytest.raises(RuntimeError, match="depthwise_conv2d: "):
        torch.ops.leanmark.depthwise_conv2d(*arguments)


@needs_native
@pytest.mark.parametrize(
    "changed",
    [
        {0: IMAGE[0]},
        {0: IMAGE[:, :4]},
        {1: None},
        {1: EXPAND[:1]},
        {2: B[1:]},
        {3: W[:8]},
        {4: B[1:]},
        {5: WEIGHTS.expand},
        {6: B},
        {7: 40},
        {8: 3},
        {8: 2},
    ],
)
def test_direct_calls_of_a_block_never_read_stray_memory(changed: dict[int, object]) -> None:
    arguments: list[object] = [IMAGE, *WEIGHTS, 6, 1, True]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match="inverted_residual: "):
        torch.ops.leanmark.inverted_residual(*arguments)
