"""``convert``: what it gives back computes the same, says what it chose, and can be saved."""

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leanmark_kernels.convert import WEIGHTS, Converted, Recipe, choosing, convert, timing
from leanmark_kernels.packed_state import PackedModule

UNCACHED = Recipe(rounds=1, cache=None)


class Residual(nn.Module):
    """Convolutions with batch norm around a shortcut, ReLU behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(4, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.classify = nn.Linear(8 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.first(x)))
        out = self.norm2(self.second(out))
        out += self.shortcut(x)
        out = self.relu(out)
        result: Tensor = self.classify(out.view(out.shape[0], -1))
        return result


class Branching(nn.Module):
    """What it does depends on its input's values: torch.fx cannot follow it, but it can its children."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.part(x).mean((2, 3))
        result: Tensor = self.last(features if features.sum() > 0 else -features)
        return result


class Inverted(nn.Module):
    """As in MobileNetV2, with a shortcut where ``out`` is the number of input channels."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.shortcut = out == 4

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x) if self.shortcut else self.body(x)
        return result


def trained(model: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics in its norms that make folding them matter."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -1, 1)
    return model.eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def largest_error(converted: nn.Module, model: nn.Module, input: Tensor) -> float:
    with torch.no_grad():
        exact = model.double()(input.double())
        model.float()
        return float((converted(input) - exact).abs().max() / exact.abs().max())


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
        first, last = self.part.layers
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


def test_each_choice_has_the_timings_it_rests_on() -> None:
    (choice,) = convert(trained(nn.Sequential(nn.Linear(32, 16))), torch.randn(2, 32), UNCACHED).choices
    assert {one.candidate for one in choice.timings} == {"torch", "oneDNN prepacked", "packed fp32"}
    times = [one.time_s for one in choice.timings]
    assert times == sorted(times) and times[0] > 0
    assert not choice.cached and choice.weights_count == 32 * 16
    own = {one.candidate: one.own for one in choice.timings}
    assert own == {"torch": False, "oneDNN prepacked": False, "packed fp32": True}


def test_an_operator_that_is_not_exact_enough_is_refused_with_its_error() -> None:
    recipe = Recipe(weights="w8", error=1e-6, rounds=1, cache=None)
    (choice,) = convert(trained(nn.Sequential(nn.Linear(32, 16))), torch.randn(2, 32), recipe).choices
    refused = {one.candidate: one.refused for one in choice.timings if one.refused}
    assert choice.chosen != "packed w8"
    assert list(refused) == ["packed w8"] and "is above 1e-06" in refused["packed w8"]


def test_timings_are_kept_for_the_same_work_on_the_same_machine(tmp_path: Path) -> None:
    model, recipe = trained(Residual()), Recipe(rounds=1, cache=tmp_path / "new")
    first = convert(model, images(), recipe)
    again = convert(model, images(), recipe)
    assert not any(choice.cached for choice in first.choices)
    assert all(choice.cached for choice in again.choices)
    assert [one.chosen for one in again.choices] == [one.chosen for one in first.choices]
    other = convert(model, images(batch=3), recipe)
    assert not any(choice.cached for choice in other.choices)
    (file,) = (tmp_path / "new").iterdir()
    content = json.loads(file.read_text())
    assert content["machine"]["torch"] == torch.__version__
    assert len(content["seconds"]) == 8


def test_a_broken_or_foreign_cache_is_measured_again(tmp_path: Path) -> None:
    model, recipe = trained(nn.Sequential(nn.Linear(8, 8))), Recipe(rounds=1, cache=tmp_path)
    convert(model, torch.randn(1, 8), recipe)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "machine": {"processor": "another"}}))
    assert not convert(model, torch.randn(1, 8), recipe).choices[0].cached
    file.write_text("{")
    with pytest.warns(UserWarning, match="is not read, its timings are measured again"):
        assert not convert(model, torch.randn(1, 8), recipe).choices[0].cached
    assert convert(model, torch.randn(1, 8), recipe).choices[0].cached


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


def test_torchs_own_containers_keep_their_layers() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = trained(nn.Sequential(nn.Linear(6, 8), layer, nn.Linear(8, 2)))
    converted = convert(model, torch.randn(2, 3, 6), UNCACHED)
    assert [choice.layer for choice in converted.choices] == ["0", "2"]
    assert largest_error(converted, model, torch.randn(2, 3, 6)) < 1e-5


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


def test_timings_of_three_one_by_one_hold_only_for_what_the_three_became(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name in ("torch", "one by one") else 2e-6 for name in calls}

    monkeypatch.setattr(choosing, "interleaved", timed)
    model, recipe = trained(nn.Sequential(Inverted(4))), Recipe(rounds=1, cache=tmp_path)
    assert not convert(model, images(), recipe).choices[-1].cached
    assert convert(model, images(), recipe).choices[-1].cached
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    (triple,) = (what for what in content["seconds"] if ";" in what)
    assert triple.count(" by torch") == 3
    for what, times in content["seconds"].items():
        if what != triple:
            times["oneDNN prepacked"] = 5e-7
    file.write_text(json.dumps(content))
    again = convert(model, images(), recipe).choices
    assert [choice.chosen for choice in again] == ["oneDNN prepacked"] * 3 + ["one by one"]
    assert [choice.cached for choice in again] == [True, True, True, False]


def test_layers_are_timed_beside_the_rest_of_their_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read between two calls: 32 KiB of the other weights, and 8 KiB, each with a few biases."""
    seen = []

    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        seen.append(beside)
        return dict.fromkeys(calls, 1e-6)

    monkeypatch.setattr(choosing, "interleaved", timed)
    convert(trained(nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 128))), torch.randn(1, 32), UNCACHED)
    assert seen == [32 << 10, 8 << 10]
    convert(trained(nn.Sequential(nn.Linear(8, 8, bias=False))), torch.randn(1, 8), UNCACHED)
    assert seen[2:] == [0]


def test_timing_reads_what_is_beside_a_call_but_no_more_than_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ones = [], torch.ones
    monkeypatch.setattr(torch, "ones", lambda count: asked.append(count) or ones(1))
    calls = {"first": lambda: None, "second": lambda: None}
    assert list(timing.interleaved(calls, 1, beside=4096)) == ["first", "second"]
    timing.interleaved(calls, 1, beside=1 << 40)
    assert asked == [1024, timing.MOST_BESIDE // 4]


def test_a_converted_model_is_for_inference() -> None:
    converted = convert(trained(Residual()), images(), UNCACHED)
    assert isinstance(converted, Converted)
    assert not converted.eval().training
    with pytest.raises(ValueError, match="for inference: train the original, and convert it again"):
        converted.train()
