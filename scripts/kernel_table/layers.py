"""The layers of the table: shapes of real networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from kernel_table import contenders, graphs, integer_graphs, runtimes
from kernel_table.contenders import Contender
from kernel_table.graphs import Graph
from leanmark_kernels.convert.block import Block

THREE_BY_THREE = [
    (batch, channels, size)
    for batch in (1, 8)
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
]
STRIDE_2 = [(3, 64, 7, 224), (64, 128, 3, 56), (128, 256, 3, 28), (256, 512, 3, 14)]
DEPTHWISE = [(384, 14, 1), (576, 14, 2), (960, 7, 1)]
LINEARS = [
    (1, 1024, 1024),
    (1, 1024, 4096),
    (1, 4096, 4096),
    (4, 1024, 1024),
    (4, 1024, 4096),
    (8, 1024, 4096),
    (32, 1024, 4096),
]
SPARSE = [(0.8, 1), (0.9, 1), (0.5, 4), (0.8, 4)]

AnyLayer = TypeVar("AnyLayer", nn.Conv2d, nn.Linear)


@dataclass(frozen=True, slots=True)
class Case:
    """``block`` on an input of ``shape``; ``flops`` are those of computing it directly, zeros included.

    A ``pruned`` one is left in fp32: in fewer bits it takes as long as the same layer without zeros.
    """

    title: str
    block: Block
    shape: tuple[int, ...]
    flops: int
    pruned: bool = False

    def input(self) -> Tensor:
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def contenders(self, with_compiled: bool) -> list[Contender]:
        x = self.input()
        found = list(contenders.rows_of_convert(self.block, x, coarse=not self.pruned))
        for suffix, graph in self._graphs(x):
            found += runtimes.every(graph, x, tuple(self.block(x).shape), suffix)
        if isinstance(self.block.layer, nn.Linear) and not self.pruned:
            found += contenders.weight_only(self.block.layer, x)
        if with_compiled:
            found.append(contenders.compiled(self.block, x))
        return found

    def _graphs(self, x: Tensor) -> Iterator[tuple[str, Graph]]:
        """What the libraries that read graphs are given, with what to call it."""
        yield "", graphs.fp32(self.block)
        if self.pruned:
            return
        yield " int8 dynamic", integer_graphs.dynamic(self.block)
        yield " int8 static", integer_graphs.static(self.block, x)
        yield " uint8 static", integer_graphs.static(self.block, x, unsigned=True)
        if isinstance(self.block.layer, nn.Linear):
            yield " w8", graphs.nbits(self.block.layer, 8, 128, weight_only=True)
            yield " w8a8", graphs.nbits(self.block.layer, 8, 128)
            yield " w4a8", graphs.nbits(self.block.layer, 4, 32)

    def exact(self) -> Tensor:
        output: Tensor = copy.deepcopy(self.block).double()(self.input().double())
        return output


def cases() -> Iterator[Case]:
    for batch, channels, size in THREE_BY_THREE:
        yield _convolution(f"conv 3x3 {channels}@{size} batch {batch}", batch, size, _conv(channels, 3))
    for channels, filters, kernel, size in STRIDE_2:
        layer = nn.Conv2d(channels, filters, kernel, stride=2, padding=kernel // 2)
        title = f"conv {kernel}x{kernel} {channels}->{filters}@{size} stride 2 batch 1"
        yield _convolution(title, 1, size, layer)
    yield _convolution("conv 1x1 256->1024@14 batch 1", 1, 14, nn.Conv2d(256, 1024, 1))
    for channels, size, stride in DEPTHWISE:
        layer = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels)
        yield _convolution(f"depthwise 3x3 {channels}@{size} stride {stride} batch 1", 1, size, layer)
    for rows, depth, columns in LINEARS:
        yield _linear(f"linear {rows}x{depth}x{columns}", rows, nn.Linear(depth, columns))
    for share, block in SPARSE:
        zeros = f"{share:.0%} zeros" + (f" in {block}x1 blocks" if block > 1 else "")
        conv, linear = _pruned(_conv(256, 3), share, block), _pruned(nn.Linear(1024, 4096), share, block)
        yield replace(_convolution(f"conv 3x3 256@14 batch 1, {zeros}", 1, 14, conv), pruned=True)
        yield replace(_linear(f"linear 1x1024x4096, {zeros}", 1, linear), pruned=True)


def _conv(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2)


def _pruned(layer: AnyLayer, share: float, block: int) -> AnyLayer:
    """``layer`` with the smallest blocks of ``block`` consecutive outputs set to zero."""
    with torch.no_grad():
        blocks = layer.weight.unflatten(0, (-1, block))
        scores = blocks.square().sum(1, keepdim=True)
        threshold = scores.flatten().kthvalue(round(share * scores.numel())).values
        layer.weight.copy_((blocks * (scores > threshold)).flatten(0, 1))
    return layer


def _convolution(title: str, batch: int, size: int, conv: nn.Conv2d) -> Case:
    block = Block(conv, "relu").eval()
    shape = (batch, conv.in_channels, size, size)
    outputs = batch * conv.out_channels * (size // conv.stride[0]) ** 2
    return Case(title, block, shape, 2 * outputs * conv.weight[0].numel())


def _linear(title: str, rows: int, linear: nn.Linear) -> Case:
    shape = (rows, linear.in_features)
    return Case(title, Block(linear).eval(), shape, 2 * rows * linear.weight.numel())
