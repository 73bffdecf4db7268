"""``WinogradConv2d`` and ``PackedLinear``: layers that hold packed weights, saved and loaded."""

import io

import pytest
import torch
from torch import Tensor, nn

from leanmark_kernels import PackedLinear, WinogradConv2d, packing
from leanmark_kernels.packed_state import VERSION, PackedModule


def conv(**changed: object) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, **changed})


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(10, 20, bias=bias)


LAYERS = {
    "winograd 2": lambda: WinogradConv2d.from_conv(conv(), tile=2, relu=True),
    "winograd 4": lambda: WinogradConv2d.from_conv(conv(bias=False)),
    "winograd as stored": lambda: WinogradConv2d.from_conv(conv(), as_stored=True),
    "winograd 7x7": lambda: WinogradConv2d.from_conv(conv(kernel_size=7, stride=2, padding=3), tile=3),
    "linear fp32": lambda: PackedLinear.from_linear(linear()),
    "linear fp16": lambda: PackedLinear.from_linear(linear(), dtype=torch.float16),
    "linear bf16": lambda: PackedLinear.from_linear(linear(bias=False), dtype=torch.bfloat16),
    "linear int8": lambda: PackedLinear.from_linear(linear(), dtype=torch.int8, relu=True),
}
EMPTY = {
    "winograd 2": lambda: WinogradConv2d(4, 6, tile=2, relu=True),
    "winograd 4": lambda: WinogradConv2d(4, 6, bias=False),
    "winograd as stored": lambda: WinogradConv2d(4, 6, as_stored=True),
    "winograd 7x7": lambda: WinogradConv2d(4, 6, tile=3, kernel_size=7, stride=2, padding=3),
    "linear fp32": lambda: PackedLinear(10, 20),
    "linear fp16": lambda: PackedLinear(10, 20, dtype=torch.float16),
    "linear bf16": lambda: PackedLinear(10, 20, dtype=torch.bfloat16, bias=False),
    "linear int8": lambda: PackedLinear(10, 20, dtype=torch.int8, relu=True),
}


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


@pytest.mark.parametrize("name", LAYERS)
def test_saved_and_loaded_within_a_model(name: str) -> None:
    saved = nn.Sequential(nn.Identity(), LAYERS[name]())
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    loaded = nn.Sequential(nn.Identity(), EMPTY[name]())
    loaded.load_state_dict(torch.load(file, weights_only=True))
    input = example(saved[1])
    assert loaded(input).equal(saved(input))
    assert loaded(input).abs().sum() > 0
    assert all(isinstance(value, Tensor) for value in saved.state_dict().values())


def tampered(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    tag, weight = state["format"].clone(), state["weight"].clone()
    if kind == "version":
        tag[1] += 1
    elif kind == "operator":
        tag[0] += 1
    elif kind == "option":
        tag[3] += 1
    elif kind == "length":
        tag = tag[:3]
    elif kind == "bit":
        weight.view(torch.uint8).view(-1)[7] ^= 1
    elif kind == "shape":
        weight = weight[..., :1]
    elif kind == "buffer":
        return {"format": tag, "weight": weight, "stray": weight}
    elif kind == "untagged":
        return {"weight": weight, "bias": state["bias"]}
    return {**state, "format": tag, "weight": weight}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("version", f"its layout has version {VERSION + 1}, and this code reads version {VERSION}"),
        ("operator", "it is packed for another operator than"),
        ("length", "it is packed for another operator than"),
        ("option", "and this layer is for"),
        ("bit", "do not match its checksum, so it is corrupt"),
        ("shape", "do not match its checksum, so it is corrupt"),
        ("buffer", r"it holds \['stray', 'weight'\], and this layer holds \['bias'"),
        ("untagged", "it has no 'format' tag, so it is not the state of a packed layer"),
    ],
)
@pytest.mark.parametrize("name", ["winograd 2", "linear int8"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_corrupt_or_foreign_state_is_refused(kind: str, reason: str, name: str, strict: bool) -> None:
    state = tampered(LAYERS[name]().state_dict(), kind)
    model = nn.Sequential(EMPTY[name]())
    with pytest.raises(RuntimeError, match=f"this state for '0' is refused: .*{reason}"):
        model.load_state_dict({f"0.{key}": value for key, value in state.items()}, strict=strict)
    assert not model[0].weight.any()


def test_the_state_of_torchs_own_layer_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not the state of a packed layer. Pack the original layer again"):
        WinogradConv2d(4, 6).load_state_dict(conv().state_dict())


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


@pytest.mark.parametrize("name", LAYERS)
def test_traced_whole(name: str) -> None:
    layer = LAYERS[name]()
    input = example(layer)
    exported = torch.export.export(layer, (input,))
    operators = {node.target for node in exported.graph.nodes if node.op == "call_function"}
    assert operators == {getattr(torch.ops.leanmark, layer.layout).default}
    assert exported.module()(input).equal(layer(input))


@pytest.mark.parametrize("name", LAYERS)
def test_weights_without_values_are_refused(name: str) -> None:
    layer = LAYERS[name]().to("meta")
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), pytest.raises(ValueError, match="on meta; it must be on cpu"):
            layer(example(layer))
        assert layer(example(layer).to("meta")).device.type == "meta"


def test_weights_as_they_are_stored_take_a_quarter_of_the_memory_and_are_no_others() -> None:
    ahead, as_stored = (WinogradConv2d.from_conv(conv(), as_stored=one) for one in (False, True))
    assert as_stored.weight.nbytes * 4 == ahead.weight.nbytes
    for one, other, is_for, takes in ((ahead, as_stored, 1, 0), (as_stored, ahead, 0, 1)):
        message = f"it is for .*as_stored {is_for}.*, and this layer is for .*as_stored {takes}"
        with pytest.raises(RuntimeError, match=message):
            one.load_state_dict(other.state_dict())


def test_the_layer_shows_its_options() -> None:
    assert repr(WinogradConv2d(4, 6)) == (
        "WinogradConv2d(tile=4, stride=1, as_stored=0, in_channels=4, out_channels=6, padding=1, relu=False)"
    )
    assert repr(PackedLinear(10, 20, dtype=torch.int8)) == (
        "PackedLinear(bits=8, in_features=10, out_features=20, relu=False)"
    )


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match="weight is torch.float64; it must be one of"):
        PackedLinear(10, 20, dtype=torch.float64)
    assert torch.float64 not in packing.LINEAR_DTYPES
