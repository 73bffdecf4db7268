"""Weights that stay zero while a model is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Masked(nn.Module):
    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.mask: Tensor

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


@contextmanager
def masked(masks: Mapping[tuple[nn.Module, str], Tensor]) -> Iterator[None]:
    """Within it each weight, a module's by name, is zero where its mask is 0, whoever reads it; it stays so.

    A mask is of the shape and dtype of the weight, of zeros and ones. Hooks before a call would not do:
    torch's attention reads the weight of its last layer without calling it.
    """
    for (layer, name), mask in masks.items():
        parametrize.register_parametrization(layer, name, _Masked(mask))
    yield
    for layer, name in masks:
        parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
