"""Multiply-accumulates by leanmark, by torch's counter, and by hand where that one is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from leanmark import registry
from leanmark.models.macs import count_macs

TOKENS, WIDTH, INNER, LAYERS, ROW, CLASSES = 8, 64, 256, 2, 8, 10
HIDDEN = 128


def rows() -> Iterator[tuple[str, int, int, int]]:
    """What it is, leanmark's count, torch's count, and the count to agree with."""
    for name in ("mlp", "cnn"):  # dense layers and convolutions: torch is right
        module, inputs = workload(name)
        torchs = by_torch(module, inputs)
        yield name, count_macs(module, inputs), torchs, torchs
    for name, expected in (("lstm", lstm()), ("transformer", transformer())):
        module, inputs = workload(name)
        yield name, count_macs(module, inputs), by_torch(module, inputs), expected
    transposed = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
    image = torch.rand(1, 8, 5, 5)
    by_hand = 5 * 5 * 8 * 4 * 4 * 4  # every input meets every weight of its channel
    yield "transposed convolution", count_macs(transposed, image), by_torch(transposed, image), by_hand


def workload(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A workload's model and one sample."""
    made = registry.load("workloads", name)()
    return made.model().eval(), made.dataset().test.inputs[:1]


def by_torch(module: nn.Module, inputs: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(inputs)
    return int(counter.get_total_flops()) // 2


def lstm() -> int:
    """Four gates of inputs and state, a row at a time; then the classifier."""
    return TOKENS * 4 * HIDDEN * (ROW + HIDDEN) + HIDDEN * CLASSES


def transformer() -> int:
    """Embedding; per layer four projections, scores and values, two dense layers; classifier."""
    layer = 4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH + 2 * TOKENS * WIDTH * INNER
    return TOKENS * ROW * WIDTH + LAYERS * layer + WIDTH * CLASSES
