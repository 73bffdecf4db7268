"""The one interface of a workload."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from leanmark.errors import Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """``inputs`` [N, ...] and ``targets`` [N] (class indices, int64) or [N, ...] (regression, float)."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    train: Split
    test: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a model is trained: Adam with a one-cycle learning rate, shuffled by ``seed``."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    seed: int = 0


class Workload(ABC):
    """A model, its data, its training and its quality; stateless, so it can be made in any process.

    ``version`` is part of the work's identity: raise it whenever a change here changes the numbers.
    ``recipe`` is ``None`` where ``model()`` comes trained; ``target`` is the quality on the test set
    (accuracy as a share, or R²) that a training run is timed and metered up to. ``sequences`` is whether
    inputs are [N, T, ...] with T tokens each, so that energy per token means something.
    """

    version: ClassVar[int] = 1
    recipe: ClassVar[Recipe | None] = None
    target: ClassVar[float | None] = None
    sequences: ClassVar[bool] = False
    finetune: ClassVar[Recipe] = Recipe(epochs=3, batch=64, learning_rate=1e-3)

    @abstractmethod
    def model(self, seed: int = 0) -> nn.Module:
        """A fresh model, its weights drawn from ``seed``; trained already where ``recipe`` is ``None``."""

    @abstractmethod
    def dataset(self) -> Dataset:
        """The fixed split. Tensors are float32 (inputs) on the CPU."""

    @property
    def quantization(self) -> Literal["static", "dynamic"]:
        """Which int8 suits: ``static`` for convolutions, ``dynamic`` for recurrent nets and transformers."""
        return "static"

    def student(self, seed: int = 0) -> nn.Module:
        """A smaller, untrained model for distillation, its weights drawn from ``seed``.

        Raises:
            Unsupported: this workload has none.
        """
        raise Unsupported(f"{type(self).__name__} defines no student() to distil into")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The task's loss, a scalar: cross-entropy for class targets, squared error otherwise."""
        if targets.dtype == torch.int64:
            return nn.functional.cross_entropy(outputs.float(), targets)
        return nn.functional.mse_loss(outputs.float(), targets)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of the measured training step."""
        rate = (self.recipe or self.finetune).learning_rate
        return torch.optim.Adam(parameters, lr=rate)
