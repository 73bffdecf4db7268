"""One operator on random data, as a workload: no accuracy, but the error against float64 as its quality."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from leanmark import operations
from leanmark.errors import Unsupported
from leanmark.operations import Linear, Operation
from leanmark.workloads.base import Dataset, Recipe, Split, Workload
from leanmark.workloads.training import seeded

_STEP_COUNT = 32
_TEST_COUNT = 8


@dataclass(frozen=True, slots=True)
class Operator(Workload):
    """``parameters`` are what follows ``op:``, see ``leanmark.operations``; inference only."""

    parameters: str

    recipe: ClassVar[Recipe | None] = None

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return _layer(self.operation)

    def dataset(self) -> Dataset:
        """Normal inputs; the test targets are the exact outputs, in float64."""
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(_STEP_COUNT + _TEST_COUNT, *_shape(self.operation), generator=generator)
        steps, tests = inputs[:_STEP_COUNT], inputs[_STEP_COUNT:]
        with torch.no_grad():
            exact = copy.deepcopy(self.model()).double()(tests.double())
        return Dataset(
            train=Split(inputs=steps, targets=torch.zeros(_STEP_COUNT)),
            test=Split(inputs=tests, targets=exact),
        )

    @property
    def operation(self) -> Operation:
        return operations.parse(f"{operations.PREFIX}:{self.parameters}")

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        raise Unsupported("a single operator is measured in inference only")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise Unsupported("a single operator is measured in inference only")


def _layer(operation: Operation) -> nn.Module:
    if isinstance(operation, Linear):
        return nn.Sequential(nn.Linear(operation.features, operation.out_features))
    conv = nn.Conv2d(
        operation.channels,
        operation.out_channels,
        operation.kernel,
        stride=operation.stride,
        padding=operation.kernel // 2,
        groups=operation.groups,
    )
    return nn.Sequential(conv, nn.ReLU())


def _shape(operation: Operation) -> tuple[int, ...]:
    if isinstance(operation, Linear):
        return (operation.features,)
    return (operation.channels, operation.size, operation.size)
