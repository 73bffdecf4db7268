"""A model that does nothing: what is measured of it is what leanmark itself adds to every step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from leanmark.errors import Unsupported
from leanmark.workloads.base import Dataset, Recipe, Split, Workload

_CLASSES = 4
_COUNT = 64


class Noop(Workload):
    """The inputs are the outputs: scores [N, 4] of the right class, in inference only."""

    recipe: ClassVar[Recipe | None] = None

    def model(self, seed: int = 0) -> nn.Module:
        return nn.Identity()

    def dataset(self) -> Dataset:
        targets = torch.arange(_COUNT) % _CLASSES
        split = Split(inputs=nn.functional.one_hot(targets, _CLASSES).float(), targets=targets)
        return Dataset(train=split, test=split)

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        raise Unsupported("noop has no parameters to train")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise Unsupported("noop has no parameters to train")
