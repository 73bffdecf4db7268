"""``convert``: what it gives back computes the same, says what it chose, and can be saved."""

import copy
import io
import itertools
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from leanmark_kernels.convert import WEIGHTS, Converted, Recipe, choosing, convert, rows
from leanmark_kernels.convert.block import Block
from leanmark_kernels.convert.conversion import OWN_LAYERS
from leanmark_kernels.packed_state import PackedModule

from .convert_models import (
    UNCACHED,
    Branching,
    Inverted,
    Residual,
    images,
    largest_error,
    trained,
)


def test_computes_the_same_for_any_batch_with_everything_folded() -> None:
    model = trained(Residual())
    converted = convert(model, images(), UNCACHED)
    assert largest_error(converted, model, images(3)) < 1e-5
    assert converted.error < 1e-5
    assert {choice.layer: choice.what for choice in converted.choices} == {
        "first": "conv 4->8 3x3 padding 1x1 + bias + relu of 2x4x6x6",
        "shortcut": "conv 4->8 1x1 + bias of 2x4x6x6",
        "second": "conv 8->8 3x3 padding 1x1 + bias + residual + relu of 2x8x6x6",
        "classify": "linear 288->5 + bias of 2x288",
    }
    assert not any(isinstance(part, nn.BatchNorm2d | nn.ReLU) for part in converted.modules())
    assert converted.untraced == ()


@pytest.mark.parametrize(("out", "residual"), [(4, " + residual"), (6, "")])
@pytest.mark.parametrize("fastest", ["inverted residual", "one by one"])
def test_an_inverted_residual_is_measured_as_one_operator_too(
    out: int, residual: str, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name in (fastest, "depthwise") else 2e-6 for name in calls}

    monkeypatch.setattr(choosing, "interleaved", timed)
    model = trained(nn.Sequential(Inverted(out)))
    converted = convert(model, images(), UNCACHED)
    assert largest_error(converted, model, images(3)) < 1e-5
    triple = converted.choices[-1]
    assert triple.chosen == fastest
    assert triple.what.endswith(f"conv 16->{out} 1x1 + bias{residual} of 2x16x6x6")
    one = fastest == "inverted residual"
    assert triple.operator == ("leanmark::inverted_residual" if one else None)
    assert len(converted.choices) == (1 if one else 4)
    assert triple.weights_count == (64 + 144 + 16 * out if one else 0)
    eight = convert(model, images(), Recipe(weights="w8", rounds=1, cache=None))
    assert eight.choices[-1].chosen == "one by one"
    refused = [each.refused for each in eight.choices[-1].timings if each.refused]
    assert refused == ["it has its weights in fp32, not as w8"]


def test_an_inverted_residual_that_expands_nothing_is_one_too() -> None:
    body = trained(Inverted(6)).body
    model = nn.Sequential(nn.Conv2d(4, 16, 3), nn.ReLU6(), *list(body)[3:])
    converted = convert(model.eval(), images(), UNCACHED)
    assert largest_error(converted, model, images(3)) < 1e-5
    together = [choice.what for choice in converted.choices if "; " in choice.what]
    filtered = "conv 16->16 3x3 padding 1x1 groups 16 + bias + relu6 of 2x16x4x4"
    assert together == [f"{filtered}; conv 16->6 1x1 + bias of 2x16x4x4"]


def test_sparse_layers_are_candidates_where_there_are_zeros() -> None:
    model = trained(Residual())
    recipe = Recipe(weights="sparse", rounds=1, cache=None)
    assert not any("sparse" in str(choice) for choice in convert(model, images(), recipe).choices)
    with torch.no_grad():
        model.second.weight[:4] = 0.0  # one block of two
    converted = convert(model, images(), recipe)
    choices = {one.layer: one for one in converted.choices}
    assert {"sparse 1x1", "sparse 4x1"} < {each.candidate for each in choices["second"].timings}
    assert "zeros" in choices["second"].what and "zeros" not in choices["first"].what
    assert largest_error(converted, model, images()) < 1e-5


def test_every_operator_of_ours_is_in_a_layer_that_counts_as_ours() -> None:
    layers = [
        nn.Linear(32, 32),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(1),
    ]
    for layer in layers[:2]:
        nn.init.zeros_(layer.get_parameter("weight")[:16])
    seen = set()
    for row, layer in itertools.product(rows.ROWS, layers):
        if row.operator and isinstance(layer, row.layer) and row.why_not(layer) is None:
            built = row.build(
                Block(layer, None, residual=False), (1, 32, 8, 8)[: 2 if layer is layers[0] else 4]
            )
            assert any(isinstance(part, OWN_LAYERS) for part in built.modules()), row.name
            seen.add(row.operator)
    assert seen == {row.operator for row in rows.ROWS if row.operator}


def test_the_model_itself_stays_as_it_was() -> None:
    model = trained(Residual())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    convert(model, images(), UNCACHED)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(after[name].equal(tensor) for name, tensor in before.items())


def test_what_cannot_be_traced_is_named_and_converted_part_by_part() -> None:
    model = trained(Branching())
    converted = convert(model, images(), UNCACHED)
    assert [one.module for one in converted.untraced] == ["Branching"]
    assert "TraceError" in converted.untraced[0].reason
    assert [choice.layer for choice in converted.choices] == ["part.0", "last"]
    assert largest_error(converted, model, images()) < 1e-5


class PassedBy(nn.Module):
    """Calls the layers of a part and never the part; ``read`` looks at a layer's weight too."""

    def __init__(self, read: bool) -> None:
        super().__init__()
        self.part = nn.Module()
        self.part.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 3)])
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        first, last = self.part.layers  # type: ignore[misc]  # parts are no lists to mypy
        x = first(x) if len(x) else x
        result: Tensor = last(x * first.weight.mean() if self.read else x)
        return result


def test_layers_of_a_part_whose_code_is_passed_by_are_found() -> None:
    model = trained(PassedBy(read=False))
    converted = convert(model, torch.randn(2, 8), UNCACHED)
    assert [choice.layer for choice in converted.choices] == ["part.layers.0", "part.layers.1"]
    assert largest_error(converted, model, torch.randn(2, 8)) < 1e-5


def test_code_that_cannot_be_traced_and_reads_a_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PassedBy cannot be traced, .* reads from a layer: .*'weight'"):
        convert(trained(PassedBy(read=True)), torch.randn(2, 8), UNCACHED)


def test_eight_bit_weights_are_taken_wherever_they_are_legal() -> None:
    model = trained(Residual())
    converted = convert(model, images(), Recipe(weights="w8", rounds=1, cache=None))
    chosen = {choice.layer: (choice.chosen, choice.weights) for choice in converted.choices}
    assert chosen["classify"] == chosen["shortcut"] == ("packed w8", "w8")
    assert chosen["first"][1] == "fp32"
    assert 1e-5 < largest_error(converted, model, images()) < 3e-2
    packed = [part.weight.dtype for part in converted.modules() if isinstance(part, PackedModule)]
    assert packed.count(torch.int8) == 2


def test_an_operator_that_is_not_exact_enough_is_refused_with_its_error() -> None:
    recipe = Recipe(weights="w8", error=1e-6, rounds=1, cache=None)
    (choice,) = convert(trained(nn.Sequential(nn.Linear(32, 16))), torch.randn(2, 32), recipe).choices
    refused = {one.candidate: one.refused for one in choice.timings if one.refused}
    assert choice.chosen != "packed w8"
    assert list(refused) == ["packed w8"] and "is above 1e-06" in refused["packed w8"]


@pytest.mark.parametrize("weights", [name for name, each in WEIGHTS.items() if "cpu" in each.devices])
def test_saved_and_loaded(weights: str) -> None:
    converted = convert(trained(Residual()), images(), Recipe(weights=weights, rounds=1, cache=None))
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with torch.no_grad():
        expected = converted(images())
        assert loaded(images()).equal(expected)
        for buffer in loaded.buffers():
            if buffer.dtype == torch.float32:
                buffer.zero_()
        loaded.load_state_dict(converted.state_dict())
        assert loaded(images()).equal(expected)
    assert loaded.choices == converted.choices


def test_a_part_can_be_exchanged_in_a_converted_model_and_in_its_copy() -> None:
    input = images()
    converted = convert(trained(Residual()), input, UNCACHED)
    for model in (copy.deepcopy(converted), converted):
        model.body.classify = nn.Flatten()
        with torch.no_grad():
            assert model(input).shape == (2, 288)
        assert "classify.weight" not in model.body.state_dict()


def test_torchs_own_modules_keep_the_layers_whose_weights_they_read() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.score = nn.Linear(6, 8), nn.AdaptiveLogSoftmaxWithLoss(8, 10, [4])

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.score.log_prob(self.embed(x))
            return result

    model = trained(nn.Sequential(Scored()))
    converted = convert(model, torch.randn(2, 6), UNCACHED)
    assert [choice.layer for choice in converted.choices] == ["0.embed"]
    assert largest_error(converted, model, torch.randn(2, 6)) < 1e-5


def test_a_layer_that_is_called_twice_and_one_whose_weights_are_read() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.read = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.twice(torch.relu(self.twice(x))) @ self.read.weight + self.read(x)
            return result

    model = trained(Shared())
    converted = convert(model, torch.randn(2, 8), UNCACHED)
    assert [choice.layer for choice in converted.choices] == ["twice"]
    assert largest_error(converted, model, torch.randn(2, 8)) < 1e-5


def test_a_layer_that_is_called_by_keyword_where_code_cannot_be_traced_stays() -> None:
    class Named(Branching):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(input=self.part(x).mean((2, 3)))
            return result if x.sum() > 0 else -result

    model = trained(Named())
    converted = convert(model, images(), UNCACHED)
    assert [choice.layer for choice in converted.choices] == ["part.0"]
    assert largest_error(converted, model, images()) < 1e-5


def test_a_norm_over_another_dimension_is_not_folded() -> None:
    model = trained(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)))
    assert largest_error(convert(model, torch.randn(4, 5, 6), UNCACHED), model, torch.randn(4, 5, 6)) < 1e-5
    folded = convert(model, torch.randn(4, 6), UNCACHED)
    assert largest_error(folded, model, torch.randn(4, 6)) < 1e-5
    assert not any(isinstance(part, nn.BatchNorm1d) for part in folded.modules())


def test_a_single_layer_and_a_model_without_layers() -> None:
    (choice,) = convert(nn.Linear(4, 4).eval(), torch.ones(1, 4), UNCACHED).choices
    assert choice.layer == ""
    assert convert(nn.Identity().eval(), torch.ones(1, 4), UNCACHED).choices == ()


def test_bad_input_is_named() -> None:
    linear = nn.Linear(4, 4).eval()
    with pytest.raises(TypeError, match="model is a str; it must be a torch.nn.Module"):
        convert("linear", torch.ones(1, 4))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="example holds a list; it must be tensors"):
        convert(linear, [1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model is in training mode; call model.eval\(\) first"):
        convert(nn.Linear(4, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match="'example 0' is on cpu and 'weight' on meta; all must be on one"):
        convert(nn.Linear(4, 4, device="meta").eval(), torch.ones(1, 4))
    with pytest.raises(ValueError, match="'example 0' is on meta, and meta is neither a processor nor an"):
        convert(nn.Linear(4, 4, device="meta").eval(), torch.ones(1, 4, device="meta"))
    with pytest.raises(ValueError, match="weights 'w4' have no operator on cpu; it must be one of fp32, "):
        convert(linear, torch.ones(1, 4), Recipe(weights="w4"))
    with pytest.raises(ValueError, match="weights is 'w3'; it must be one of fp32, "):
        Recipe(weights="w3")
    with pytest.raises(ValueError, match="rounds is 0; it must be at least 1"):
        Recipe(rounds=0)
    with pytest.raises(ValueError, match="error is -1; it must be above 0"):
        Recipe(error=-1)
    broken = nn.Linear(4, 4).eval()
    with torch.no_grad():
        broken.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="'weight' has .* values that are NaN or infinite"):
        convert(broken, torch.ones(1, 4), UNCACHED)
    hooked = nn.Sequential(nn.Linear(4, 4)).eval()
    hooked[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="'0' has forward hooks, which would be lost"):
        convert(hooked, torch.ones(1, 4), UNCACHED)


def test_a_model_that_counts_on_changes_in_place_is_refused() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            copied = x + 0
            out = self.conv(copied)
            copied.zero_()
            result: Tensor = out + x
            return result

    with pytest.raises(ValueError, match="computes something else when converted"):
        convert(trained(InPlace()), images(), UNCACHED)


def test_a_converted_model_is_for_inference() -> None:
    converted = convert(trained(Residual()), images(), UNCACHED)
    assert isinstance(converted, Converted)
    assert not converted.eval().training
    with pytest.raises(ValueError, match="for inference: train the original, and convert it again"):
        converted.train()
