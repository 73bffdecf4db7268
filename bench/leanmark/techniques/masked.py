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
def masked(masks: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Within it the ``weight`` of each layer is zero where its mask is 0, whoever reads it; it stays so.

    A mask is of the shape and dtype of the weight, of zeros and ones. Hooks before a call would not do:
    torch's attention reads the weight of its last layer without calling it.
    """
    for layer, mask in masks.items():
        parametrize.register_parametrization(layer, "weight", _Masked(mask))
    yield
    for layer in masks:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
