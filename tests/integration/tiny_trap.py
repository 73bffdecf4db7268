"""A module that behaves until it is called once too often."""

from __future__ import annotations

import tiny
import torch
from torch import Tensor, nn


class Trap(nn.Module):
    def __init__(self, inner: nn.Module, what: str, at: int) -> None:
        super().__init__()
        self.inner, self.what, self.at, self.calls = inner, what, at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.at:
            tiny.misbehave(self.what)
        out: Tensor = self.inner(x)
        return out


class Noisy(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out + torch.rand_like(out)
