"""An LSTM (Hochreiter & Schmidhuber, 1997) that reads a digit row by row."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from leanmark.workloads import digits
from leanmark.workloads.base import Dataset, Recipe, Workload
from leanmark.workloads.training import seeded

_ROW = 8


class RowReader(nn.Module):
    """The last state of an LSTM over the rows, classified: [N, 8, 8] -> [N, 10]."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_ROW, hidden, batch_first=True)
        self.classify = nn.Linear(hidden, digits.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        out: Tensor = self.classify(states[:, -1])
        return out


class Lstm(Workload):
    sequences = True
    quantization = "dynamic"
    recipe: ClassVar[Recipe | None] = Recipe(epochs=30, batch=32, learning_rate=1e-2, weight_decay=1e-4)
    target: ClassVar[float | None] = 0.97
    finetune: ClassVar[Recipe] = Recipe(epochs=5, batch=32, learning_rate=3e-3)

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return RowReader(128)

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return RowReader(48)

    def dataset(self) -> Dataset:
        return digits.rows_of_pixels()
