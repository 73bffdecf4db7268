"""A multilayer perceptron on images of digits, wide enough that its weights matter."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from leanmark.workloads import digits
from leanmark.workloads.base import Dataset, Recipe, Workload
from leanmark.workloads.training import seeded

_PIXELS = 64


class Mlp(Workload):
    recipe: ClassVar[Recipe | None] = Recipe(epochs=20, batch=32, learning_rate=2e-3, weight_decay=1e-3)
    target: ClassVar[float | None] = 0.97

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return _perceptron(512)

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return _perceptron(128)

    def dataset(self) -> Dataset:
        return digits.images()


def _perceptron(width: int) -> nn.Sequential:
    """[N, 1, 8, 8] -> [N, 10]."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(_PIXELS, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, digits.CLASSES),
    )
