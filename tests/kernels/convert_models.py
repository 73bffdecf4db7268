"""Models that the tests of ``convert`` share, and how far off a converted one is."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from leanmark_kernels.convert import Recipe

UNCACHED = Recipe(rounds=1, cache=None)


class Residual(nn.Module):
    """Convolutions with batch norm around a shortcut, ReLU behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Conv2d(4, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.classify = nn.Linear(8 * 36, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.first(x)))
        out = self.norm2(self.second(out))
        out += self.shortcut(x)
        out = self.relu(out)
        result: Tensor = self.classify(out.view(out.shape[0], -1))
        return result


class Branching(nn.Module):
    """What it does depends on its input's values: torch.fx cannot follow it, but it can its children."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.part(x).mean((2, 3))
        result: Tensor = self.last(features if features.sum() > 0 else -features)
        return result


class Inverted(nn.Module):
    """As in MobileNetV2, with a shortcut where ``out`` is the number of input channels."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            nn.Conv2d(16, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.shortcut = out == 4

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x) if self.shortcut else self.body(x)
        return result


Model = TypeVar("Model", bound=nn.Module)


def trained(model: Model) -> Model:
    """In evaluation mode, with statistics in its norms that make folding them matter."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -1, 1)
    return model.eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def largest_error(converted: nn.Module, model: nn.Module, input: Tensor) -> float:
    with torch.no_grad():
        exact = model.double()(input.double())
        model.float()
        return float((converted(input) - exact).abs().max() / exact.abs().max())
