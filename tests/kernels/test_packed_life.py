"""What a packed layer goes through inside a model: tracing, moves, casts, copies, pickles, conversion."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import leanmark_kernels as lk
from leanmark_kernels.convert import Recipe, convert
from leanmark_kernels.packed_state import VERSION

from .packed_layers import EVERY, LAYERS, conv, example, linear


@EVERY
def test_a_leaf_of_a_traced_model(name: str) -> None:
    layer = LAYERS[name].make()
    model, input = nn.Sequential(nn.Identity(), layer, nn.ReLU()), example(layer)
    traced = fx.symbolic_trace(model)
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1", "2"]
    assert traced(input).equal(layer(input).relu())
    with pytest.raises(TypeError, match=f"{layer.layout}: a packed layer cannot be traced alone"):
        fx.symbolic_trace(layer)


def test_a_residual_is_traced_too() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = lk.WinogradConv2d.from_conv(conv())

        def forward(self, input: Tensor) -> Tensor:
            result: Tensor = self.layer(input, residual=input)
            return result

    model, input = Added(), torch.randn(1, 5, 4, 4)
    assert fx.symbolic_trace(model)(input).equal(model.layer(input, input))


@EVERY
def test_compiled_as_one_graph(name: str) -> None:
    layer = LAYERS[name].make()
    input = example(layer)
    torch._dynamo.reset()
    with torch.no_grad():
        assert torch.compile(layer, backend="aot_eager", fullgraph=True)(input).equal(layer(input))


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_cast_is_refused(name: str, dtype: torch.dtype) -> None:
    layer = LAYERS[name].make()
    input, before = example(layer), layer(example(layer))
    dtypes = [one.dtype for one in layer.buffers()]
    with pytest.raises(TypeError, match=f"cannot become {dtype}: the dtypes of its"):
        layer.to(dtype)
    assert layer.float()(input).equal(before)
    assert [one.dtype for one in layer.buffers()] == dtypes


@EVERY
def test_moved_and_laid_out_without_harm(name: str) -> None:
    layer = LAYERS[name].make()
    input, before = example(layer), layer(example(layer))
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert layer(input).equal(before)
    assert all(one.is_contiguous() for one in layer.buffers())
    assert layer.cpu().share_memory()(input).equal(before)
    assert copy.deepcopy(layer).to("meta")(input.to("meta")).shape == before.shape


@EVERY
def test_copied_pickled_and_assigned(name: str) -> None:
    layer = LAYERS[name].make()
    input = example(layer)
    before = layer(input)
    copied, pickled = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))
    assert copied(input).equal(before)
    assert pickled(input).equal(before)
    for target in (copied, copied.to("meta")):
        target.load_state_dict(copy.deepcopy(layer.state_dict()), assign=True)
        assert target(input).equal(before)


@EVERY
def test_an_old_pickle_is_refused(name: str) -> None:
    layer = LAYERS[name].make()
    layer.get_buffer("format")[1] -= 1
    refused = f"this pickled {type(layer).__name__} is refused"
    reason = f"its layout has version {VERSION - 1}, and this code reads version {VERSION}"
    with pytest.raises(RuntimeError, match=f"{refused}: {reason}"):
        pickle.loads(pickle.dumps(layer))
    del layer.format
    with pytest.raises(RuntimeError, match=f"{refused}: it has no 'format' tag"):
        pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("tag", [torch.tensor(3), torch.zeros(6), None, "tag"])
def test_a_state_whose_tag_is_none_is_refused(tag: Any) -> None:
    layer = LAYERS["fp32"].make()
    reason = layer.why_refused({**layer.state_dict(), "format": tag})
    assert reason is not None
    assert reason.startswith("it has no 'format' tag")


@EVERY
def test_the_state_of_what_is_beside_it_may_be_loaded_alone(name: str) -> None:
    layer = LAYERS[name].make()
    model = nn.Sequential(nn.Linear(2, 2), layer)
    input, before = example(layer), layer(example(layer))
    beside = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    missing = model.load_state_dict(beside, strict=False).missing_keys
    assert sorted(missing) == sorted(f"1.{key}" for key in layer.state_dict())
    assert layer(input).equal(before)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "1\.format"'):
        model.load_state_dict(beside)


@pytest.mark.parametrize("weight", [torch.zeros(2, 31, 16, device="meta"), [0.0], None])
def test_a_state_without_values_is_refused(weight: Any) -> None:
    layer = LAYERS["fp32"].make()
    assert layer.why_refused({**layer.state_dict(), "weight": weight}) == (
        "['weight'] in it are not tensors with values. Pack the original layer again."
    )


@EVERY
def test_an_input_of_another_width_is_refused(name: str) -> None:
    """Also where the layout is filled up, so that the operator would take it."""
    layer = LAYERS[name].make()
    input = example(layer)
    images = input.dim() == 4
    wide = torch.cat((input, input[:, :1]), 1)
    legal = f"N, {input.shape[1]}, H, W" if images else rf"\*, {input.shape[-1]}"
    for wrong in (wide, wide[:, :-2], input[0, 0, 0, 0] if images else input[0, 0]):
        with pytest.raises(ValueError, match=rf"{layer.layout}: input is \[.*; it must be \[{legal}\]"):
            layer(wrong)


@EVERY
def test_what_is_no_float32_tensor_is_refused(name: str) -> None:
    layer = LAYERS[name].make()
    input = example(layer)
    with pytest.raises(TypeError, match=f"{layer.layout}: input is torch.float64; it must be torch.float32"):
        layer(input.double())
    for wrong, kind in ((input.numpy(), "ndarray"), ([1.0], "list"), (None, "NoneType")):
        with pytest.raises(TypeError, match=f"{layer.layout}: input is a {kind}; it must be a torch.Tensor"):
            layer(wrong)
    if not layer.takes_residual:
        with pytest.raises(TypeError, match="a residual is given; it must be None, since none is added"):
            layer(input, input)


@EVERY
def test_converting_again_is_refused(name: str) -> None:
    layer = LAYERS[name].make()
    with pytest.raises(ValueError, match=f"'0' is a {type(layer).__name__}, so converted already; convert"):
        convert(nn.Sequential(layer).eval(), example(layer), Recipe(cache=None, rounds=1))


def test_a_converted_model_is_refused_too() -> None:
    once = convert(linear().eval(), torch.randn(2, 31), Recipe(cache=None, rounds=1))
    with pytest.raises(ValueError, match="convert: model is a Converted, so converted already"):
        convert(once, torch.randn(2, 31))
