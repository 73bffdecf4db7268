"""A small residual network (He et al., 2016) on images of digits."""

from __future__ import annotations

import itertools
from typing import ClassVar

from torch import Tensor, nn

from leanmark.workloads import digits
from leanmark.workloads.base import Dataset, Recipe, Workload
from leanmark.workloads.training import seeded


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut: [N, C, H, W] -> [N, D, H/s, W/s]."""

    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _convolution(channels, out_channels, 3, stride)
        self.second = _convolution(out_channels, out_channels, 3)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels == out_channels
            else _convolution(channels, out_channels, 1, stride)
        )
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu2(self.second(self.relu1(self.first(x))) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """``widths`` channels per stage, halving the image from one to the next: [N, 1, 8, 8] -> [N, 10]."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = itertools.pairwise(widths)
        self.stem = nn.Sequential(_convolution(1, widths[0], 3), nn.ReLU())
        self.blocks = nn.Sequential(
            Residual(widths[0], widths[0]),
            *(Residual(before, after, stride=2) for before, after in pairs),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(widths[-1], digits.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(self.stem(x))).flatten(1)
        out: Tensor = self.classify(features)
        return out


class Cnn(Workload):
    recipe: ClassVar[Recipe | None] = Recipe(epochs=10, batch=64, learning_rate=4e-3)
    target: ClassVar[float | None] = 0.985
    finetune: ClassVar[Recipe] = Recipe(epochs=5, batch=32, learning_rate=3e-3)

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return ResNet((32, 64))

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return ResNet((16, 32))

    def dataset(self) -> Dataset:
        return digits.images()


def _convolution(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )
