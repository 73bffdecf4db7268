"""The work of the validation contests: a step of countable units, and a technique that adds some.

One unit is the same matrix product every time, so the true ratio of two steps is the ratio of their counts.
Workers import this by name; as a script it does as many units as its argument says, for callgrind to count.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmark.machine import callgrind
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

UNITS = 1000
"""Of the baseline's step; each takes about a microsecond."""

SIDE = 16
CLASSES = 4
SAMPLES = 64


class Units:
    """``count`` products of two float32 matrices [16, 16] when called; the same for everyone."""

    def __init__(self, count: int) -> None:
        draw = np.random.default_rng(0)
        self.count = count
        self._left, self._right = draw.random((2, SIDE, SIDE), dtype=np.float32)
        self._out = np.empty((SIDE, SIDE), dtype=np.float32)

    def __call__(self) -> None:
        left, right, out, multiply = self._left, self._right, self._out, np.matmul
        for _ in range(self.count):
            multiply(left, right, out=out)


def model() -> nn.Module:
    """The baseline: ``UNITS`` units a step."""
    return _module(UNITS)


def loaders() -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Inputs [64, 4] that are already the scores of the right class, so that quality is judged as ever."""
    import torch

    targets = torch.arange(SAMPLES) % CLASSES
    batch = torch.nn.functional.one_hot(targets, CLASSES).float(), targets
    return [batch], [batch]


@dataclass(frozen=True, slots=True)
class Extra(Technique):
    """``units`` more in every step; with none, the model is the baseline's once more."""

    units: int = 0
    backends = ("eager",)
    phases = ("inference",)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return _module(UNITS + self.units)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        assert isinstance(after.units, Units)
        return {"units": after.units.count}


def _module(count: int) -> nn.Module:
    from counted import Counted  # its class needs torch, which importing a technique must not

    return Counted(Units(count))


if __name__ == "__main__":
    work = Units(int(sys.argv[-1]))
    Units(1)()
    with callgrind.collecting():
        work()
