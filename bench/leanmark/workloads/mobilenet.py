"""MobileNetV2 (Sandler et al., CVPR 2018): depthwise convolutions between thin layers, random weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from leanmark.workloads import untrained
from leanmark.workloads.base import Dataset
from leanmark.workloads.resnet import CLASSES, convolution
from leanmark.workloads.training import seeded

_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks and stride of each stage: table 2 of the paper."""

_TESTS = 16


class Inverted(nn.Module):
    """Widen, filter each channel, narrow: [N, C, H, W] -> [N, D, H/s, W/s], around a shortcut if it can."""

    def __init__(self, channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        widen = (*convolution(channels, wide, 1), nn.ReLU6()) if expansion > 1 else ()
        self.body = nn.Sequential(
            *widen,
            *convolution(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            *convolution(wide, out_channels, 1),
        )
        self.adds = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return x + out if self.adds else out


def mobilenet_v2(divisor: int = 1) -> nn.Sequential:
    """3.5 million parameters, 0.30 GMACs at 224: [N, 3, H, W] -> [N, 1000].

    ``divisor`` divides all channels.
    """
    channels = 32 // divisor
    parts: list[nn.Module] = [*convolution(3, channels, 3, 2), nn.ReLU6()]
    for expansion, wanted, blocks, stride in _STAGES:
        for index in range(blocks):
            out = max(wanted // divisor, 1)
            parts.append(Inverted(channels, out, expansion, stride if index == 0 else 1))
            channels = out
    last = 1280 // divisor
    parts += [*convolution(channels, last, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(last, CLASSES))


@dataclass(frozen=True, slots=True)
class MobileNetV2(untrained.Untrained):
    image: int = 224
    divisor: int = 1

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return mobilenet_v2(self.divisor)

    def dataset(self) -> Dataset:
        return untrained.images(self.image, CLASSES, _TESTS)
