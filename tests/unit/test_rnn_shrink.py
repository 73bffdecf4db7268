"""Shrinking is exact: it equals the wide layer after nothing reads the removed units any more."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from leanmark.errors import Unsupported
from leanmark.techniques.rnn_shrink import shrink, shrink_all, unit_norms

HIDDEN, KEPT, FEATURES = 12, 5, 6


def random_units(rnn: nn.RNNBase, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = rnn.num_layers * (1 + rnn.bidirectional)
    return [torch.randperm(HIDDEN, generator=generator)[:KEPT].sort().values for _ in range(count)]


def without_removed(rnn: nn.RNNBase, keep: list[Tensor]) -> nn.RNNBase:
    """The oracle: no weight of ``rnn`` reads a removed unit."""
    masked = copy.deepcopy(rnn)
    directions = 1 + rnn.bidirectional
    with torch.no_grad():
        for layer in range(rnn.num_layers):
            for direction in range(directions):
                suffix = f"l{layer}" + "_reverse" * direction
                for unit in range(HIDDEN):
                    if unit not in keep[layer * directions + direction]:
                        getattr(masked, f"weight_hh_{suffix}")[:, unit] = 0
                    for below in range(directions) if layer else ():
                        if unit not in keep[(layer - 1) * directions + below]:
                            getattr(masked, f"weight_ih_{suffix}")[:, below * HIDDEN + unit] = 0
    return masked


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_shrunk_layer_equals_the_masked_one(
    kind: Callable[..., nn.RNNBase], layers: int, bidirectional: bool, bias: bool
) -> None:
    torch.manual_seed(1)
    rnn = kind(FEATURES, HIDDEN, num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=True)
    keep = random_units(rnn)
    inputs = torch.randn(3, 7, FEATURES)
    wide, wide_states = without_removed(rnn, keep)(inputs)
    narrow, narrow_states = shrink(rnn, keep)(inputs)
    columns = torch.cat([units + d * HIDDEN for d, units in enumerate(keep[-1 - bidirectional :])])
    assert (narrow - wide[..., columns]).abs().max() < 1e-6
    if kind is nn.LSTM:
        (wide_states, wide_cells), (narrow_states, narrow_cells) = wide_states, narrow_states
        for layer, units in enumerate(keep):
            assert (narrow_cells[layer] - wide_cells[layer][:, units]).abs().max() < 1e-6
    for layer, units in enumerate(keep):
        assert (narrow_states[layer] - wide_states[layer][:, units]).abs().max() < 1e-6


def test_options_training_mode_and_random_state_survive() -> None:
    rnn = nn.RNN(FEATURES, HIDDEN, nonlinearity="relu", dropout=0.5, num_layers=2).eval()
    drawn = torch.random.get_rng_state()
    narrow = shrink(rnn, random_units(rnn))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert isinstance(narrow, nn.RNN)
    assert (narrow.nonlinearity, narrow.dropout, narrow.training) == ("relu", 0.5, False)
    assert narrow.hidden_size == KEPT


def test_norm_counts_rows_and_columns_once_each() -> None:
    rnn = nn.RNN(1, 2, bias=False)
    with torch.no_grad():
        rnn.get_parameter("weight_ih_l0").copy_(torch.tensor([[3.0], [0.0]]))
        rnn.get_parameter("weight_hh_l0").copy_(torch.tensor([[0.0, 4.0], [0.0, 0.0]]))
    # unit 0: input row 3, recurrent row (0, 4), column (0, 0); unit 1: column (4, 0) only
    assert unit_norms(rnn)[0].tolist() == [5.0, 4.0]


class Reader(nn.Module):
    """``read`` maps what the recurrent layer returns to the input of a linear layer."""

    def __init__(self, rnn: nn.RNNBase, width: int, read: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.rnn = rnn
        self.hidden = nn.Linear(width, 9)
        self.out = nn.Linear(9, 3)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        sequence, states = self.rnn(x)
        states = states[0] if isinstance(states, tuple) else states
        out: Tensor = self.out(torch.relu(self.hidden(self.read(sequence, states))))
        return out


READS: dict[str, tuple[bool, int, Callable[[Tensor, Tensor], Tensor]]] = {
    "last step": (False, HIDDEN, lambda sequence, states: sequence[:, -1]),
    "both ends": (True, 2 * HIDDEN, lambda sequence, states: sequence[:, -1]),
    "whole sequence": (False, HIDDEN, lambda sequence, states: sequence),
    "mean of a ReLU": (True, 2 * HIDDEN, lambda sequence, states: torch.relu(sequence).mean(1)),
    "last state": (False, HIDDEN, lambda sequence, states: states[-1]),
    "states of both directions": (True, 2 * HIDDEN, lambda s, states: torch.cat([states[-2], states[-1]], 1)),
    "flattened sequence": (False, 7 * HIDDEN, lambda sequence, states: sequence.flatten(1)),
}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("reading", READS)
def test_consumer_loses_the_removed_columns(kind: Callable[..., nn.RNNBase], reading: str) -> None:
    torch.manual_seed(2)
    bidirectional, width, read = READS[reading]
    rnn = kind(FEATURES, HIDDEN, num_layers=2, bidirectional=bidirectional, batch_first=True)
    model = Reader(rnn, width, read)
    keep = [norm.topk(KEPT).indices.sort().values for norm in unit_norms(rnn)]
    inputs = torch.randn(4, 7, FEATURES)
    masked = copy.deepcopy(model)
    masked.rnn = without_removed(rnn, keep)
    removed = torch.ones(width // HIDDEN, HIDDEN, dtype=torch.bool)
    for position in range(len(removed)):
        removed[position, keep[-1 - bidirectional + position * bidirectional]] = False
    with torch.no_grad():
        masked.hidden.weight[:, removed.flatten()] = 0
        expected = masked(inputs)
    assert shrink_all(model, inputs[:2], lambda width: KEPT)
    assert model.hidden.in_features == width // HIDDEN * KEPT == model.hidden.weight.shape[1]
    with torch.no_grad():
        assert (model(inputs) - expected).abs().max() < 1e-6
    model.train()
    model(inputs).sum().backward()


def test_wide_enough_layers_are_left_alone() -> None:
    model = Reader(nn.GRU(FEATURES, HIDDEN, batch_first=True), HIDDEN, READS["last step"][2])
    assert not shrink_all(model, torch.randn(2, 7, FEATURES), lambda width: width)
    assert model.rnn.hidden_size == HIDDEN


class Elsewhere(nn.Module):
    """The recurrent output goes through ``middle`` before the linear layer."""

    def __init__(self, middle: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.rnn = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.out = nn.Linear(HIDDEN, 3)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.middle(self.rnn(x)[0], x))
        return out


@pytest.mark.parametrize(
    "middle",
    [
        lambda sequence, x: sequence + x,
        lambda sequence, x: sequence.softmax(-1),
        lambda sequence, x: nn.functional.layer_norm(sequence, sequence.shape[-1:]),
        lambda sequence, x: sequence.sum(-1, keepdim=True) + x,
    ],
    ids=["residual", "softmax", "layer norm", "sum"],
)
def test_other_consumers_are_refused(middle: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(3)
    with pytest.raises(Unsupported, match=r"output of rnn is .*nn\.Linear"):
        shrink_all(Elsewhere(middle), torch.randn(2, 4, HIDDEN), lambda width: KEPT)


def test_columns_are_found_wherever_the_units_went() -> None:
    model = Elsewhere(lambda sequence, x: sequence.flip(-1))
    weight = model.out.weight.detach().clone()
    keep = unit_norms(model.rnn)[0].topk(KEPT).indices.sort().values
    assert shrink_all(model, torch.randn(2, 4, HIDDEN), lambda width: KEPT)
    assert torch.equal(model.out.weight, weight[:, (HIDDEN - 1 - keep).flip(0)])


def test_projection_is_refused() -> None:
    rnn = nn.LSTM(FEATURES, HIDDEN, proj_size=4)
    with pytest.raises(Unsupported, match="proj_size"):
        shrink(rnn, random_units(rnn))
