"""Larger models with random weights on random inputs: for latency, memory, energy and numerics only.

Without weights there is no accuracy to lose. The test split has no targets, so that quality is how often a
changed model says the same as the unchanged one, and how far its outputs are off.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from leanmark.workloads.base import Dataset, Recipe, Split, Workload

_COUNT = 32
"""Samples to step on; a larger batch repeats them, which changes no time."""


class Untrained(Workload):
    recipe: ClassVar[Recipe | None] = None
    finetune: ClassVar[Recipe] = Recipe(epochs=1, batch=8, learning_rate=1e-4)


def images(size: int, classes: int, tests: int) -> Dataset:
    """Normal pixels [N, 3, size, size] float32 and classes [N] to train on."""
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(_COUNT + tests, 3, size, size, generator=draw)
    return _unlabelled(inputs, torch.randint(classes, (_COUNT,), generator=draw))


def tokens(length: int, vocabulary: int, tests: int) -> Tensor:
    """Uniform tokens [N, length] int64: those to train on, and ``tests`` behind them."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (_COUNT + tests, length), generator=draw)


def classified(inputs: Tensor, classes: int) -> Dataset:
    """Random classes [N] for those of ``inputs`` to train on."""
    return _unlabelled(inputs, torch.randint(classes, (_COUNT,), generator=torch.Generator().manual_seed(1)))


def continued(inputs: Tensor) -> Dataset:
    """The targets [N, T] of a sequence are its next tokens."""
    return _unlabelled(inputs, inputs[:_COUNT].roll(-1, dims=1))


def _unlabelled(inputs: Tensor, targets: Tensor) -> Dataset:
    """``targets`` for the first ``inputs``, none for the others, which are to test."""
    nothing = torch.empty(0, dtype=torch.int64)
    return Dataset(
        train=Split(inputs=inputs[:_COUNT], targets=targets),
        test=Split(inputs=inputs[_COUNT:], targets=nothing),
    )
