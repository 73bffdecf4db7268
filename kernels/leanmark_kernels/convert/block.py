"""A layer with what follows it, as one module: the unit that is measured and replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer: TypeAlias = nn.Conv2d | nn.Linear

Pool: TypeAlias = nn.MaxPool2d | nn.AdaptiveAvgPool2d

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": F.relu6,
    "gelu": F.gelu,
    "silu": F.silu,
}


class Block(nn.Module):
    """``activation(layer(input) + residual)``, both optional, by torch operators one after another.

    ``activation`` is a key of ``ACTIVATIONS`` or ``None``; ``residual`` says whether one is added, a tensor
    of the shape of the output.
    """

    def __init__(self, layer: nn.Module, activation: str | None = None, residual: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.activation = activation
        self.residual = residual

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        output: Tensor = self.layer(input)
        if residual is not None:
            output = output + residual
        return output if self.activation is None else ACTIVATIONS[self.activation](output)

    def extra_repr(self) -> str:
        return f"activation={self.activation}, residual={self.residual}"


def describe(block: Block, shape: tuple[int, ...]) -> str:
    """What ``block`` does to an input of ``shape``: equal words, equal work."""
    layer = block.layer
    if isinstance(layer, Pool):
        return f"{layer} of {_by(shape)}"
    if isinstance(layer, nn.Conv2d):
        what = f"conv {layer.in_channels}->{layer.out_channels} {_by(layer.kernel_size)}"
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)), ("groups", 1)):
            value = getattr(layer, name)
            if value != default:
                what += f" {name} {_by(value) if isinstance(value, tuple) else value}"
        if layer.padding_mode != "zeros":
            what += f" {layer.padding_mode}"
    else:
        assert isinstance(layer, nn.Linear)
        what = f"linear {layer.in_features}->{layer.out_features}"
    what += "" if layer.bias is None else " + bias"
    what += " + residual" if block.residual else ""
    what += "" if block.activation is None else f" + {block.activation}"
    return f"{what} of {_by(shape)}"


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in sizes)
