"""Removing hidden units from nn.LSTM, nn.GRU and nn.RNN: torch-pruning crashes on them or skips them.

The shrunk layer is exact: it computes what the wide layer computes once nothing reads the removed units.
Any number of layers and both directions work; a projection (``proj_size``) does not. Whatever reads the
layer's output or last state must be an nn.Linear that sees each hidden unit as one column of its own:
the last step, the whole sequence, the states of both directions side by side, a flattened sequence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leanmark.errors import Unsupported

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_TOLERANCE = 1e-4  # of the largest output: float32 sums in another order


def unit_norms(rnn: nn.RNNBase) -> list[Tensor]:
    """L2 norm [hidden] of all weights into and out of each unit, one per layer and direction."""
    norms = []
    for suffix in _suffixes(rnn):
        into = getattr(rnn, f"weight_ih_{suffix}").detach()
        recurrent = getattr(rnn, f"weight_hh_{suffix}").detach()
        per_row = into.square().sum(1) + recurrent.square().sum(1)
        squares = per_row.view(_GATES[rnn.mode], rnn.hidden_size).sum(0) + recurrent.square().sum(0)
        norms.append(squares.sqrt())
    return norms


def shrink(rnn: nn.RNNBase, keep: Sequence[Tensor]) -> nn.RNNBase:
    """A copy of ``rnn`` with only the hidden units ``keep``.

    ``keep`` holds one sorted int64 tensor [kept] per layer and direction, in PyTorch's order; all have
    the same length. The columns of whatever reads the output are the caller's to remove.

    Raises:
        Unsupported: the layer has a projection.
    """
    if rnn.proj_size:
        raise Unsupported(f"an nn.{type(rnn).__name__} with proj_size cannot be shrunk")
    narrow = _like(rnn, hidden_size=len(keep[0]))
    directions = 1 + rnn.bidirectional
    wide = rnn.state_dict()
    small = {}
    for index, (suffix, units) in enumerate(zip(_suffixes(rnn), keep, strict=True)):
        rows = torch.cat([units + gate * rnn.hidden_size for gate in range(_GATES[rnn.mode])])
        below = keep[(index // directions - 1) * directions : index // directions * directions]
        columns = torch.arange(rnn.input_size) if index < directions else _side_by_side(below, rnn)
        small[f"weight_ih_{suffix}"] = wide[f"weight_ih_{suffix}"][rows][:, columns]
        small[f"weight_hh_{suffix}"] = wide[f"weight_hh_{suffix}"][rows][:, units]
        for bias in (f"bias_ih_{suffix}", f"bias_hh_{suffix}") if rnn.bias else ():
            small[bias] = wide[bias][rows]
    narrow.load_state_dict(small)
    return narrow.train(rnn.training)


def shrink_all(model: nn.Module, example: Tensor, kept: Callable[[int], int]) -> bool:
    """Shrink every recurrent layer of ``model`` in place to ``kept(hidden_size)`` units.

    ``example`` [N, ...] is one small input batch. Returns whether anything changed.

    Raises:
        Unsupported: a layer has a projection, or something other than a supported consumer reads it.
    """
    changed = False
    for name, rnn in list(model.named_modules()):
        if isinstance(rnn, nn.RNNBase) and kept(rnn.hidden_size) < rnn.hidden_size:
            _shrink_in(model, name, rnn, example, kept(rnn.hidden_size))
            changed = True
    return changed


@torch.no_grad()
def _shrink_in(model: nn.Module, name: str, rnn: nn.RNNBase, example: Tensor, width: int) -> None:
    keep = [norm.topk(width).indices.sort().values for norm in unit_norms(rnn)]
    narrow = shrink(rnn, keep)
    model.eval()
    columns = _columns_read(model, rnn, keep, example)
    expected = _masked(model, name, keep, columns)(example)
    for consumer, kept_columns in columns.items():
        _slice_columns(model.get_submodule(consumer), kept_columns)
    model.set_submodule(name, narrow)
    try:
        found = model(example)
    except RuntimeError as error:
        raise Unsupported(
            f"the output of {name} is read by something other than nn.Linear: {error}"
        ) from error
    if (found - expected).abs().max() > _TOLERANCE * expected.abs().max():
        raise Unsupported(
            f"the output of {name} is not only read by nn.Linear: shrinking it changes the function"
        )


def _columns_read(
    model: nn.Module, rnn: nn.RNNBase, keep: Sequence[Tensor], example: Tensor
) -> dict[str, Tensor]:
    """For each nn.Linear that reads ``rnn``: the columns [kept] that do not hold a removed unit.

    Found by running once with NaN in the removed units: a NaN passes through whatever keeps units apart
    and fills every column as soon as something mixes them.
    """
    found: dict[str, Tensor] = {}

    def poison(_: nn.Module, __: Any, outputs: Any) -> Any:
        return _poisoned(rnn, keep, outputs)

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            holes = inputs[0].isnan().flatten(0, -2)
            if holes.any() and not holes.all() and torch.equal(holes.any(0), holes.all(0)):
                found[name] = (~holes[0]).nonzero().flatten()

        return look

    hooks = [rnn.register_forward_hook(poison)]
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            hooks.append(module.register_forward_pre_hook(watch(name)))
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _poisoned(rnn: nn.RNNBase, keep: Sequence[Tensor], outputs: Any) -> Any:
    sequence, states = outputs
    if not isinstance(sequence, Tensor):
        raise Unsupported("a recurrent layer that runs on packed sequences cannot be shrunk")
    last = _side_by_side(keep[-1 - rnn.bidirectional :], rnn)
    sequence = _only(sequence, last)
    stacked = tuple(
        torch.stack([_only(layer, units) for layer, units in zip(state, keep, strict=True)])
        for state in (states if isinstance(states, tuple) else (states,))
    )
    return sequence, stacked if isinstance(states, tuple) else stacked[0]


def _only(values: Tensor, kept: Tensor) -> Tensor:
    holes = torch.full_like(values, torch.nan)
    holes[..., kept] = values[..., kept]
    return holes


def _masked(model: nn.Module, name: str, keep: Sequence[Tensor], columns: dict[str, Tensor]) -> nn.Module:
    """A copy of ``model`` in which nothing reads the units outside ``keep``."""
    masked = copy.deepcopy(model)
    rnn = masked.get_submodule(name)
    assert isinstance(rnn, nn.RNNBase)
    directions = 1 + rnn.bidirectional
    for index, suffix in enumerate(_suffixes(rnn)):
        _zero_other_columns(getattr(rnn, f"weight_hh_{suffix}"), keep[index])
        if index >= directions:
            first = (index // directions - 1) * directions
            below = _side_by_side(keep[first : first + directions], rnn)
            _zero_other_columns(getattr(rnn, f"weight_ih_{suffix}"), below)
    for consumer, kept_columns in columns.items():
        _zero_other_columns(masked.get_submodule(consumer).weight, kept_columns)
    return masked


def _zero_other_columns(weight: Tensor | nn.Module, kept: Tensor) -> None:
    assert isinstance(weight, Tensor)
    dropped = torch.ones(weight.shape[1], dtype=torch.bool)
    dropped[kept] = False
    weight[:, dropped] = 0.0


def _slice_columns(linear: nn.Module, kept: Tensor) -> None:
    assert isinstance(linear, nn.Linear)
    linear.weight = nn.Parameter(linear.weight[:, kept].clone())
    linear.in_features = len(kept)


def _side_by_side(units: Sequence[Tensor], rnn: nn.RNNBase) -> Tensor:
    """Columns of a layer's output that hold ``units`` of its directions."""
    return torch.cat([kept + direction * rnn.hidden_size for direction, kept in enumerate(units)])


def _suffixes(rnn: nn.RNNBase) -> list[str]:
    directions = ("", "_reverse") if rnn.bidirectional else ("",)
    return [f"l{layer}{direction}" for layer in range(rnn.num_layers) for direction in directions]


def _like(rnn: nn.RNNBase, hidden_size: int) -> nn.RNNBase:
    options: dict[str, Any] = {"nonlinearity": rnn.nonlinearity} if isinstance(rnn, nn.RNN) else {}
    weight = rnn.get_parameter("weight_hh_l0")
    make: Callable[..., nn.RNNBase] = type(rnn)
    empty = make(  # on no device: initial weights would be drawn from the process's random numbers
        rnn.input_size,
        hidden_size,
        num_layers=rnn.num_layers,
        bias=rnn.bias,
        batch_first=rnn.batch_first,
        dropout=rnn.dropout,
        bidirectional=rnn.bidirectional,
        device="meta",
        dtype=weight.dtype,
        **options,
    )
    return empty.to_empty(device=weight.device)
