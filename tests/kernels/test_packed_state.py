"""Every packed layer is saved and loaded, exported as one operator, and refuses states of others."""

import io

import pytest
import torch
from torch import Tensor, nn

import leanmark_kernels as lk
from leanmark_kernels.packed_state import TAG, VERSION

from .packed_layers import EVERY, LAYERS, conv, example


@EVERY
def test_saved_and_loaded_within_a_model(name: str) -> None:
    layer = LAYERS[name].make()
    saved = nn.Sequential(nn.Identity(), layer)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    loaded, input = nn.Sequential(nn.Identity(), LAYERS[name].empty()), example(layer)
    assert not loaded(input).any()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded(input).equal(saved(input))
    assert loaded(input).any()
    assert repr(loaded) == repr(saved)
    assert all(isinstance(value, Tensor) for value in saved.state_dict().values())


@EVERY
def test_exported_as_one_operator(name: str) -> None:
    layer = LAYERS[name].make()
    input = example(layer)
    with torch.no_grad():
        exported = torch.export.export(layer, (input,))
        assert exported.module()(input).equal(layer(input))
    operators = {node.target for node in exported.graph.nodes if node.op == "call_function"}
    operator = "int8_dynamic_linear" if isinstance(layer, lk.Int8Linear) else layer.layout
    assert operators == {getattr(torch.ops.leanmark, operator).default}


@EVERY
def test_weights_without_values_are_refused(name: str) -> None:
    layer = LAYERS[name].make().to("meta")
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), pytest.raises(ValueError, match="on meta; it must be on cpu"):
            layer(example(layer))
        assert layer(example(layer).to("meta")).device.type == "meta"


def tampered(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """``state`` with something wrong in its tag, or in the first of its tensors behind it."""
    tag, name = state[TAG].clone(), next(key for key in state if key != TAG)
    tensor = state[name].clone()
    if kind == "operator":
        tag[0] += 1
    elif kind == "version":
        tag[1] += 1
    elif kind == "option":
        tag[3] += 1
    elif kind == "length":
        tag = tag[:3]
    elif kind == "bit":
        tensor.view(torch.uint8).view(-1)[7] ^= 1
    elif kind == "shape":
        tensor = tensor[..., :0]
    elif kind == "buffer":
        return {**state, "stray": tensor}
    elif kind == "untagged":
        return {key: value for key, value in state.items() if key != TAG}
    return {**state, TAG: tag, name: tensor}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("operator", "it is packed for another operator than"),
        ("version", f"its layout has version {VERSION + 1}, and this code reads version {VERSION}"),
        ("option", "it is for .*, and this layer is for"),
        ("length", "it is packed for another operator than"),
        ("bit", "do not match its checksum, so it is corrupt"),
        ("shape", "do not match its checksum, so it is corrupt"),
        ("buffer", r"it holds \[.*'stray'.*\], and this layer holds \["),
        ("untagged", "it has no 'format' tag, so it is not the state of a packed layer"),
    ],
)
@EVERY
def test_a_corrupt_or_foreign_state_is_refused_and_changes_nothing(kind: str, reason: str, name: str) -> None:
    state = {f"0.{key}": one for key, one in tampered(LAYERS[name].make().state_dict(), kind).items()}
    model = nn.Sequential(LAYERS[name].empty())
    before = {key: one.clone() for key, one in model.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=f"this state for '0' is refused: .*{reason}"):
            model.load_state_dict(state, strict=strict)
    assert all(one.equal(before[key]) for key, one in model.state_dict().items())


def test_the_state_of_torchs_own_layer_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not the state of a packed layer. Pack the original layer again"):
        lk.WinogradConv2d(5, 5).load_state_dict(conv().state_dict())


def test_weights_as_they_are_stored_take_a_quarter_of_the_memory_and_are_no_others() -> None:
    ahead, as_stored = (lk.WinogradConv2d.from_conv(conv(), as_stored=one) for one in (False, True))
    assert as_stored.weight.nbytes * 4 == ahead.weight.nbytes
    for one, other, is_for, takes in ((ahead, as_stored, 1, 0), (as_stored, ahead, 0, 1)):
        message = f"it is for .*as_stored {is_for}.*, and this layer is for .*as_stored {takes}"
        with pytest.raises(RuntimeError, match=message):
            one.load_state_dict(other.state_dict())


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (
            lk.WinogradConv2d(4, 6),
            "WinogradConv2d(tile=4, stride=1, as_stored=0, in_channels=4, out_channels=6, padding=1, "
            "relu=False)",
        ),
        (
            lk.PackedLinear(10, 20, dtype=torch.int8),
            "PackedLinear(bits=8, in_features=10, out_features=20, relu=False)",
        ),
        (
            lk.W4A8Linear(64, 8),
            "W4A8Linear(group=32, zero_points=0, in_features=64, out_features=8, relu=False)",
        ),
        (
            lk.Int8WinogradConv2d(4, 6),
            "Int8WinogradConv2d(in_channels=4, out_channels=6, padding=1, relu=False)",
        ),
        (
            lk.SparseLinear(10, 20),
            "SparseLinear(block=1, in_features=10, out_features=20, sparsity=1.000, relu=False)",
        ),
    ],
)
def test_a_layer_shows_its_options(layer: nn.Module, shown: str) -> None:
    assert repr(layer) == shown
