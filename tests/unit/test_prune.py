from __future__ import annotations

import copy
import dataclasses
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leanmark import chain
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context
from leanmark.techniques.depgraph import prune_channels
from leanmark.techniques.prune import Prune, widths
from leanmark.workloads.base import Dataset, Recipe, Split, Workload


class Residual(nn.Module):
    def __init__(self, width: int = 32, norm: str = "batch", groups: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(4, width)
        self.out = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        out: Tensor = self.out((x + torch.relu(self.norm(self.middle(x)))).mean((2, 3)))
        return out


class Encoder(nn.Module):
    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.position = nn.Parameter(torch.randn(1, 8, 32))
        layer = nn.TransformerEncoderLayer(32, heads, 64, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.encoder(self.embed(x) + self.position).mean(1))
        return out


class ConvolutionThenGru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(8, 32, 3, padding=1)
        self.second = nn.Conv1d(32, 32, 3, padding=1)
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.hidden = nn.Linear(32, 24)
        self.out = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x)))).transpose(1, 2)
        out: Tensor = self.out(torch.relu(self.hidden(self.gru(x)[0][:, -1])))
        return out


class SkipToTheEnd(nn.Module):
    """``first`` and ``last`` make the output, behind a log-softmax; only ``middle`` is hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(8, 16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        result: Tensor = (x + self.last(torch.relu(self.middle(x)))).log_softmax(-1)
        return result


class FusedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 96), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], 32).mean(1))
        return out


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10)
    )


ROWS, IMAGES = (8, 8), (1, 8, 8)


class Tiny(Workload):
    """64 random samples whose class is the sign pattern of three of their pixels."""

    finetune = Recipe(epochs=2, batch=16, learning_rate=1e-3)

    def __init__(self, shape: tuple[int, ...] = ROWS) -> None:
        self.shape = shape

    def model(self, seed: int = 0) -> nn.Module:
        return mlp()

    def dataset(self) -> Dataset:
        inputs = torch.randn(64, *self.shape, generator=torch.Generator().manual_seed(0))
        bits = (inputs.flatten(1)[:, :3] > 0).long()
        split = Split(inputs=inputs, targets=bits @ torch.tensor([1, 2, 4]))
        return Dataset(train=split, test=split)


def prune(model: nn.Module, shape: tuple[int, ...] = ROWS, **options: Any) -> nn.Module:
    return Prune(**options).apply(model, Context(workload=Tiny(shape), baseline=model))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("broken_techniques")


HALVED = [
    (mlp(), ROWS, {"1": (32, 16), "3": (24, 16), "5": (10, 10)}),
    (Residual(), IMAGES, {"stem": (32, 16), "middle": (32, 16), "out": (10, 10)}),
    (Residual(norm="group"), IMAGES, {"stem": (32, 16), "middle": (32, 16), "out": (10, 10)}),
    (Residual(groups=4), IMAGES, {"stem": (32, 16), "middle": (32, 16), "out": (10, 10)}),
    (Residual(groups=32), IMAGES, {"stem": (32, 16), "middle": (32, 16), "out": (10, 10)}),
    (
        ConvolutionThenGru(),
        ROWS,
        {"first": (32, 16), "second": (32, 32), "gru": (32, 16), "hidden": (24, 16), "out": (10, 10)},
    ),
    (SkipToTheEnd(), ROWS, {"first": (16, 16), "middle": (32, 16), "last": (16, 16)}),
]


@pytest.mark.parametrize(
    ("model", "shape", "expected"),
    HALVED,
    ids=["mlp", "residual", "group norm", "grouped", "depthwise", "conv+gru", "skip to the end"],
)
def test_every_hidden_layer_loses_half(
    model: nn.Module, shape: tuple[int, ...], expected: dict[str, tuple[int, int]]
) -> None:
    before = copy.deepcopy(model.state_dict())
    after: nn.Module
    if isinstance(model, SkipToTheEnd):  # no classes to train on
        after = copy.deepcopy(model)
        assert prune_channels(after, torch.randn(2, *shape), Prune().kept)
    else:
        after = prune(model, shape)
    assert {name: (widths(model)[name], width) for name, width in widths(after).items()} == expected
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    facts = Prune().verify(model, after)
    assert facts["widths"] == {name: f"{a} -> {b}" for name, (a, b) in expected.items() if a != b}
    assert facts["unchanged"] == [name for name, (a, b) in expected.items() if a == b]
    assert after(torch.randn(3, *shape)).shape == model(torch.randn(3, *shape)).shape
    assert not after.training or isinstance(model, SkipToTheEnd)


def test_attention_keeps_its_heads() -> None:
    after = prune(Encoder(heads=4))
    attention = after.encoder.layers[0].self_attn  # type: ignore[union-attr, index]
    assert (attention.num_heads, attention.embed_dim, attention.head_dim) == (4, 16, 4)
    assert attention.in_proj_weight.shape == (48, 16)
    assert after.position.shape == (1, 8, 16)
    assert after.out.in_features == 16  # type: ignore[union-attr]


def test_the_same_positions_of_every_head_go() -> None:
    model = Encoder(heads=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(0.9, 1.1)
        # positions 3 and 5 of both heads are by far the weakest
        for channel in (3, 5, 19, 21):
            model.embed.weight[channel] = 1e-6
    survivors = model.embed.weight[[c for c in range(32) if c not in (3, 5, 19, 21)]].clone()
    prune_channels(model, torch.randn(2, 8, 8), lambda width, step: width - 4 if step == 2 else width)
    assert torch.equal(model.embed.weight, survivors)


def test_high_ratio_stops_at_round_to_instead_of_skipping_the_layer() -> None:
    # Torch-Pruning issue 417: its own rounding would take these layers to 0 and then leave them at 32
    after = prune(Residual(), IMAGES, ratio=0.9, round_to=8)
    assert widths(after) == {"stem": 8, "middle": 8, "out": 10}


@pytest.mark.parametrize(
    ("width", "step", "options", "expected"),
    [
        (64, 1, {}, 32),
        (24, 1, {}, 16),
        (24, 1, {"round_to": 1}, 12),
        (64, 1, {"ratio": 0.9}, 8),
        (8, 1, {"ratio": 0.9}, 8),
        (6, 1, {}, 6),
        (96, 6, {}, 48),
        (100, 1, {"ratio": 0.01, "round_to": 1}, 99),
    ],
)
def test_kept_width(width: int, step: int, options: dict[str, Any], expected: int) -> None:
    assert Prune(**options).kept(width, step) == expected


def test_masked_equals_physical() -> None:
    """What is cut away is the channels of least norm, and cutting them equals zeroing them."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    weak = [1, 4, 5, 9]
    with torch.no_grad():
        model.get_parameter("0.weight")[weak] *= 1e-3
        model.get_parameter("2.weight")[:, weak] *= 1e-3
    masked, physical = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        masked.get_parameter("2.weight")[:, weak] = 0
    inputs = torch.randn(2, 1, 8, 8)
    assert prune_channels(physical, inputs, lambda width, step: 12)
    assert (physical(inputs) - masked(inputs)).abs().max() < 1e-6


def test_seed_of_the_context_changes_the_fine_tuning_only() -> None:
    model = mlp()
    context = Context(workload=Tiny(), baseline=model)
    first, again, other = (
        Prune().apply(model, dataclasses.replace(context, seed=seed)).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert all(first[name].shape == other[name].shape for name in first)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "no hidden layer wide enough"),
        (FusedAttention(), "torch-pruning cannot prune FusedAttention"),
    ],
    ids=["only an output layer", "fused attention"],
)
def test_models_that_cannot_be_pruned_say_why(model: nn.Module, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        prune(model)


def test_masking_is_not_pruning(broken: ModuleType) -> None:
    model = mlp()
    masked = broken.MaskOnly().apply(model, Context(workload=Tiny(), baseline=model))
    assert (masked[1].weight == 0).float().mean() > 0.4
    with pytest.raises(TookNoEffect, match="no layer became narrower: 3122 parameters before, 3122 after"):
        broken.MaskOnly().verify(model, masked)


def test_another_model_is_not_a_pruned_one() -> None:
    with pytest.raises(TookNoEffect, match="names differ"):
        Prune().verify(mlp(), Residual())


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"ratio": 1.0}, {"ratio": -1.0}, {"round_to": 0}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Prune(**options)


def test_chain_text_builds_it() -> None:
    assert chain.build(chain.parse("prune(ratio=0.75,round_to=4)")[0]) == Prune(ratio=0.75, round_to=4)
