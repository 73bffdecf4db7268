"""A model and data that train in no time, and techniques that misbehave. Imported by real workers."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSES = 4
FEATURES = 16


def model() -> nn.Module:
    """Exact on the data below: each class has a feature of its own."""
    import torch
    from torch import nn

    first, last = nn.Linear(FEATURES, 32), nn.Linear(32, CLASSES)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for part in (first, last):
            part.weight.normal_(0, 0.01)
            part.bias.zero_()
            for index in range(CLASSES):
                part.weight[index, index] = 1.0
    return nn.Sequential(first, nn.ReLU(), last)


def loaders() -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Two splits of [N, 16] inputs whose class is the one large feature among the first four."""
    import torch

    generator = torch.Generator().manual_seed(1)

    def split(count: int) -> list[tuple[Tensor, Tensor]]:
        targets = torch.randint(CLASSES, (count,), generator=generator)
        inputs = torch.rand(count, FEATURES, generator=generator)
        inputs[torch.arange(count), targets] += 2.0
        return [(inputs, targets)]

    return split(128), split(200)


def broken_model() -> nn.Module:
    raise OSError("the weights are nowhere to be found")


@dataclass(frozen=True, slots=True)
class Misbehaving(Technique):
    """Does ``what`` in the process that measures, at its ``at``-th step."""

    what: str = "raise"
    at: int = 200
    backends = ("eager",)
    phases = ("inference",)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        from tiny_trap import Trap  # needs torch, which importing a technique must not

        trapped: nn.Module = Trap(model, self.what, self.at)
        return trapped

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Dice(Technique):
    """Returns a model whose outputs are other ones every time."""

    retrains = True
    backends = ("eager",)

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        from tiny_trap import Noisy

        noisy: nn.Module = Noisy(model)
        return noisy

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Garbage(Technique):
    """Returns a model of the right shape with other weights, and says nothing."""

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        import copy

        changed = copy.deepcopy(model)
        for parameter in changed.parameters():
            parameter.data.mul_(-1.0)
        return changed

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class BadlyRetrained(Garbage):
    """The same, from a technique that may change the function since it retrains."""

    retrains = True


def misbehave(what: str) -> None:
    if what == "raise":
        raise ArithmeticError("the model broke in the middle")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        time.sleep(0.001)
    if what == "hang":
        time.sleep(3600)
    if what == "clock":
        time.perf_counter = lambda: float("nan")
    if what == "return-early":
        for _ in range(8):  # so many that others who want this core leave it most of the time
            threading.Thread(target=_work_on, daemon=True).start()


def _work_on() -> None:
    while True:
        hashlib.pbkdf2_hmac("sha256", b"tiny", b"trap", 100_000)  # without the interpreter's lock
