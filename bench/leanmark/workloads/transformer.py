"""A transformer encoder (Vaswani et al., 2017) whose tokens are the rows of a digit."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from leanmark.workloads import digits
from leanmark.workloads.base import Dataset, Recipe, Workload
from leanmark.workloads.training import seeded

_ROW = _ROWS = 8


class RowEncoder(nn.Module):
    """Encodes the rows with learned positions, averages, classifies: [N, 8, 8] -> [N, 10]."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(_ROW, width)
        # as large as the embedded rows: with the usual 0.02 the order of the rows is learnt too slowly
        self.position = nn.Parameter(torch.randn(1, _ROWS, width) * 0.5)
        layer = nn.TransformerEncoderLayer(
            width, heads, dim_feedforward=4 * width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.classify = nn.Linear(width, digits.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(self.embed(x) + self.position)
        out: Tensor = self.classify(tokens.mean(1))
        return out


class Transformer(Workload):
    sequences = True
    quantization = "dynamic"
    recipe: ClassVar[Recipe | None] = Recipe(epochs=20, batch=64, learning_rate=3e-3)
    target: ClassVar[float | None] = 0.96
    finetune: ClassVar[Recipe] = Recipe(epochs=8, batch=32, learning_rate=3e-3)

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return RowEncoder(width=64, heads=4, layers=2)

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return RowEncoder(width=32, heads=4, layers=2)

    def dataset(self) -> Dataset:
        return digits.rows_of_pixels()
