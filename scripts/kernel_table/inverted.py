"""The inverted residual of MobileNetV2: three layers, by one operator of ours and by the libraries' three."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from onnx import helper
from torch import Tensor, nn

from kernel_table import contenders, graphs, runtimes
from kernel_table.contenders import Contender
from kernel_table.graphs import Graph
from leanmark_kernels.convert.block import Block
from leanmark_kernels.convert.rows import ROWS
from leanmark_kernels.convert.triples import NAME, Triple

SHAPES = [(24, 144, 56, 1), (32, 192, 28, 1), (64, 384, 14, 1), (96, 576, 14, 2), (160, 960, 7, 1)]
LIBRARIES = ("torch channels_last", "oneDNN prepacked")


@dataclass(frozen=True, slots=True)
class InvertedCase:
    """``triple`` on one image of ``shape``, in place of a ``layers.Case``."""

    title: str
    triple: Triple
    shape: tuple[int, ...]
    flops: int

    def input(self) -> Tensor:
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(0))
        return x.contiguous(memory_format=torch.channels_last)

    def contenders(self, with_compiled: bool) -> list[Contender]:
        x = self.input()
        found = [_contender("torch", self.triple, x.contiguous())]
        found += [_contender(name, self._by(name, x), x) for name in LIBRARIES]
        found.append(_contender(NAME, self.triple.fused().eval(), x, ours=True))
        found += runtimes.every(self._graph(), x, tuple(self.triple(x).shape))
        if with_compiled:
            found.append(contenders.compiled(self.triple, x))
        return found

    def exact(self) -> Tensor:
        return self.triple.exact(self.input().double())

    def _blocks(self) -> tuple[Block, Block, Block]:
        assert self.triple.originals is not None
        expand, depthwise, project = self.triple.originals
        assert expand is not None
        return expand, depthwise, project

    def _by(self, name: str, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The three layers in the row ``name`` of the table of convert."""
        [row] = [row for row in ROWS if row.name == name and row.layer is nn.Conv2d]
        modules, inner = [], x
        for block in self._blocks():
            modules.append(row.build(block, tuple(inner.shape)).eval())
            inner = block(inner)
        expand, depthwise, project = modules

        def call(input: Tensor) -> Tensor:
            hidden = depthwise(expand(input))
            output: Tensor = project(hidden, input) if self.triple.residual else project(hidden)
            return output

        return call

    def _graph(self) -> Graph:
        values = {"low": np.asarray(0, np.float32), "high": np.asarray(6, np.float32)}
        nodes, inner = [], "x"
        for index, block in enumerate(self._blocks()):
            conv = block.layer
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            names = ["x" if index == 0 else inner, f"w{index}", f"b{index}"]
            values |= {names[1]: conv.weight.detach().numpy(), names[2]: conv.bias.detach().numpy()}
            nodes.append(helper.make_node("Conv", names, [f"c{index}"], **graphs.options(conv)))
            inner = f"c{index}"
            if block.activation:
                nodes.append(helper.make_node("Clip", [inner, "low", "high"], [f"a{index}"]))
                inner = f"a{index}"
        residual = self.triple.residual
        last = (
            helper.make_node("Add", [inner, "x"], ["y"])
            if residual
            else helper.make_node("Identity", [inner], ["y"])
        )
        nodes.append(last)
        return Graph(nodes, values)


def cases() -> Iterator[InvertedCase]:
    for channels, hidden, size, stride in SHAPES:
        expand = nn.Conv2d(channels, hidden, 1)
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden)
        project = nn.Conv2d(hidden, channels, 1)
        triple = Triple(Block(expand, "relu6"), Block(depthwise, "relu6"), Block(project, None, stride == 1))
        outputs = (size // stride) ** 2
        flops = 2 * (size**2 * channels * hidden + outputs * hidden * 9 + outputs * hidden * channels)
        title = f"inverted residual {channels}->{hidden}@{size} stride {stride}"
        yield InvertedCase(title, triple.eval(), (1, channels, size, size), flops)


def _contender(name: str, compute: Callable[[Tensor], Tensor], x: Tensor, ours: bool = False) -> Contender:
    def call() -> Tensor:
        return compute(x)

    return Contender(name, call, call, ours=ours)
