"""Residual networks on images of 224 (He et al., "Deep residual learning", CVPR 2016), random weights.

The stride of a bottleneck is in its 3x3 convolution, as in torchvision and the MLPerf reference (v1.5).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from leanmark.workloads import untrained
from leanmark.workloads.base import Dataset
from leanmark.workloads.training import seeded

CLASSES = 1000

_TESTS = 16


class Basic(nn.Module):
    """Two 3x3 convolutions around a shortcut: [N, C, H, W] -> [N, width, H/s, W/s]."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(channels, width, 3, stride), nn.ReLU(), *convolution(width, width, 3)
        )
        self.shortcut = _shortcut(channels, width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut: [N, C, H, W] -> [N, 4 width, H/s, W/s]."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(channels, width, 1),
            nn.ReLU(),
            *convolution(width, width, 3, stride),
            nn.ReLU(),
            *convolution(width, 4 * width, 1),
        )
        self.shortcut = _shortcut(channels, 4 * width, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """``depths`` blocks per stage, ``width`` channels in the first: [N, 3, H, W] -> [N, 1000]."""

    def __init__(
        self,
        block: type[Basic] | type[Bottleneck],
        depths: tuple[int, ...],
        width: int = 64,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *convolution(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)
        )
        channels, blocks = width, []
        for stage, depth in enumerate(depths):
            for index in range(depth):
                stride = 2 if stage and index == 0 else 1
                blocks.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classify(self.pool(self.blocks(self.stem(x))).flatten(1))
        return out


def resnet18(width: int = 64) -> ResNet:
    """11.7 million parameters, 1.81 GMACs at 224."""
    return ResNet(Basic, (2, 2, 2, 2), width)


def resnet50(width: int = 64) -> ResNet:
    """25.6 million parameters, 4.09 GMACs at 224."""
    return ResNet(Bottleneck, (3, 4, 6, 3), width)


@dataclass(frozen=True, slots=True)
class ResNet18(untrained.Untrained):
    image: int = 224
    width: int = 64

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return resnet18(self.width)

    def dataset(self) -> Dataset:
        return untrained.images(self.image, CLASSES, _TESTS)


@dataclass(frozen=True, slots=True)
class ResNet50(untrained.Untrained):
    image: int = 224
    width: int = 64

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return resnet50(self.width)

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return resnet18(self.width)

    def dataset(self) -> Dataset:
        return untrained.images(self.image, CLASSES, _TESTS)


def convolution(
    channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution that keeps the size but for its stride, and its batch norm."""
    return (
        nn.Conv2d(channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(*convolution(channels, out_channels, 1, stride))
