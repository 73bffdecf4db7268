"""``leanmark::direct_conv2d`` and its layer."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import DirectConv2d, direct_conv2d, packing
from leanmark_kernels.convert import Recipe, choosing, convert

needs_native = pytest.mark.skipif(
    not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}"
)


def conv(**changed: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    options = {"in_channels": 5, "out_channels": 20, "kernel_size": 3, "stride": 2, "padding": 1, **changed}
    return nn.Conv2d(**options)


def image(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def test_known_values() -> None:
    """Ones under a window of ones, two channels: 18 in the middle, 12 at an edge, 8 in a corner."""
    weight, ones = packing.pack_direct(torch.ones(1, 2, 3, 3)), torch.ones(1, 2, 3, 3)
    options: dict[str, Any] = {"out_channels": 1, "kernel_size": (3, 3), "padding": (1, 1)}
    bias = torch.tensor([-10.0])
    output = direct_conv2d(ones, weight, bias, activation="relu", **options)
    assert output[0, 0].tolist() == [[0, 2, 0], [2, 8, 2], [0, 2, 0]]
    output = direct_conv2d(ones, weight, bias, ones[:, :1], activation="relu6", **options)
    assert output[0, 0].tolist() == [[0, 3, 0], [3, 6, 3], [0, 3, 0]]
    output = direct_conv2d(-ones, weight, stride=(2, 1), **options)
    assert output[0, 0].tolist() == [[-8, -12, -8], [-8, -12, -8]]


def test_nan_reaches_the_windows_that_hold_it_and_no_others() -> None:
    input = torch.zeros(1, 5, 9, 9)
    input[0, 3, 4, 4] = float("nan")
    layer = DirectConv2d.from_conv(conv(stride=1), activation="relu6")
    output = layer(input)
    assert output[0, :, 3:6, 3:6].isnan().all()
    assert output.isnan().sum() == 9 * 20


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"bias": False, "kernel_size": 1, "stride": 1, "padding": 0},
        {"kernel_size": 1, "padding": 0},
        {"kernel_size": (1, 7), "stride": (1, 3), "padding": (0, 2)},
        {"stride": 1, "padding": "same"},
        {"padding": "valid"},
    ],
)
def test_computes_what_it_was_made_from(changed: dict[str, object]) -> None:
    original, input = conv(**changed), 10 * image(2, 5, 9, 8)
    layer = DirectConv2d.from_conv(original, activation="relu6")
    with torch.no_grad():
        expected = original(input)
        residual = image(*expected.shape)
        torch.testing.assert_close(layer(input), F.relu6(expected), atol=2e-5, rtol=0)
        torch.testing.assert_close(layer(input, residual), F.relu6(expected + residual), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"groups": 5}, "groups is 5; it must be 1"),
        ({"dilation": 2}, r"dilation is \(2, 2\); it must be \(1, 1\)"),
        ({"padding_mode": "reflect"}, "padding_mode is reflect; it must be zeros"),
        ({"kernel_size": 2, "stride": 1, "padding": "same"}, "it must be the same on both sides"),
        ({"dtype": torch.float64}, "weight is torch.float64; it must be torch.float32"),
    ],
)
def test_what_stays_with_torch(changed: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=f"DirectConv2d cannot replace .*{reason}. Keep torch's layer"):
        DirectConv2d.from_conv(conv(**changed))


X, W, B = torch.zeros(2, 5, 6, 6), packing.pack_direct(torch.zeros(20, 5, 3, 3)), torch.zeros(20)
OPTIONS: dict[str, Any] = {"out_channels": 20, "kernel_size": (3, 3)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input": X[0]}, r"input is \[5, 6, 6\]; it must be \[N, C, H, W\]"),
        ({"input": X[:, :4]}, r"weight is \[2, 45, 16\]; it must be \[2, 36, 16\], as pack_direct makes it"),
        ({"out_channels": 33}, r"weight is \[2, 45, 16\]; it must be \[3, 45, 16\]"),
        ({"out_channels": 0}, r"weight is \[2, 45, 16\]; it must be \[0, 45, 16\]"),
        ({"input": X[..., :2]}, r"with padding \(0, 0\) its height and width must be at least \[3, 3\]"),
        ({"stride": (1, 0)}, r"stride is \[1, 0\]; it must be two numbers of at least 1"),
        ({"padding": (-1, 0)}, r"padding is \[-1, 0\]; it must be two numbers of at least 0"),
        ({"bias": B[1:]}, r"bias is \[19\]; it must be \[20\] or None"),
        ({"residual": X}, r"residual is \[2, 5, 6, 6\]; it must be \[2, 20, 4, 4\] or None"),
        ({"activation": "gelu"}, "activation is 'gelu'; it must be one of none, relu, relu6"),
        ({"bias": B.to("meta")}, "bias is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"direct_conv2d: .*{message}"):
        direct_conv2d(**{"input": X, "weight": W, "bias": B, **OPTIONS, **changed})


def test_weights_that_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match=r"pack_direct: weight is \[4, 0, 1, 1\]; it must be \[O, C, H, W\]"):
        packing.pack_direct(torch.zeros(4, 0, 1, 1))


RESIDUAL = torch.zeros(2, 20, 6, 6)


def test_registration_is_complete() -> None:
    arguments = (image(2, 5, 6, 6), W, B, RESIDUAL, 20, (3, 3, 1, 1, 1, 1), 2)
    torch.library.opcheck(torch.ops.leanmark.direct_conv2d.default, arguments)


@needs_native
@pytest.mark.parametrize(
    "changed",
    [
        {0: X.double()},
        {0: X[0]},
        {0: X[:, :4]},
        {0: X[..., :2], 5: (3, 3, 1, 1, 1, 0), 3: None},
        {1: W[:1]},
        {1: W[..., :8]},
        {2: B[1:]},
        {3: RESIDUAL[:1]},
        {3: RESIDUAL.double()},
        {4: 33},
        {4: 0},
        {5: (3, 5, 1, 1, 1, 1)},
        {5: (3, 3, 0, 1, 1, 1)},
        {5: (3, 3, 1, 1, 1)},
        {5: (3, 3, 1, 1, -1, 1)},
        {5: (3, 3, 1, 1, 1, 1 << 20)},
        {6: 3},
    ],
)
def test_direct_calls_never_read_stray_memory(changed: dict[int, object]) -> None:
    arguments = [X, W, B, RESIDUAL, 20, (3, 3, 1, 1, 1, 1), 0]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match="direct_conv2d: "):
        torch.ops.leanmark.direct_conv2d(*arguments)


@pytest.mark.parametrize("fastest", ["direct", "torch channels_last"])
def test_images_change_their_layout_only_for_a_first_layer_that_wants_it(
    fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(
        calls: dict[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name == fastest else 2e-6 for name in calls}

    monkeypatch.setattr(choosing, "interleaved", timed)
    model = nn.Sequential(conv(in_channels=3), nn.ReLU(), conv(in_channels=20)).eval()
    input = image(2, 3, 9, 8)
    converted = convert(model, input, Recipe(cache=None))
    seen: list[bool] = []
    first = next(part for part in converted.modules() if not list(part.children()))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0].is_contiguous()))
    with torch.no_grad():
        torch.testing.assert_close(converted(input), model(input), atol=1e-5, rtol=0)
    assert seen == [fastest == "direct"]
