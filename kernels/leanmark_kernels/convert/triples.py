"""The inverted residual of MobileNetV2 (Sandler et al., CVPR 2018): three blocks that one operator computes.

Its wide middle never reaches memory, which pays where it would not have stayed in a cache.
"""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, fx, nn

from leanmark_kernels.convert import place
from leanmark_kernels.convert.block import Block
from leanmark_kernels.depthwise_modules import InvertedResidual

OPERATOR = "leanmark::inverted_residual"
NAME = "inverted residual"

Blocks = tuple[Block, Block, Block]


class Triple(nn.Module):
    """``project(depthwise(expand(input)))``, plus ``input`` where ``project`` adds a residual.

    The three are measured and replaced one by one, and then all of them together: ``originals`` are kept for
    that.
    """

    def __init__(self, expand: Block, depthwise: Block, project: Block) -> None:
        super().__init__()
        self.residual = project.residual
        self.originals: Blocks | None = (expand, depthwise, project)
        self.expand, self.depthwise, self.project = expand, depthwise, project

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.depthwise(self.expand(input))
        output: Tensor = self.project(hidden, input) if self.residual else self.project(hidden)
        return output

    def exact(self, input: Tensor) -> Tensor:
        """As the originals compute it in float64."""
        assert self.originals is not None
        expand, depthwise, project = (copy.deepcopy(block).double() for block in self.originals)
        hidden = depthwise(expand(input))
        output: Tensor = project(hidden, input) if self.residual else project(hidden)
        return output

    def fused(self) -> nn.Module:
        assert self.originals is not None
        expand, depthwise, project = (cast(nn.Conv2d, block.layer) for block in self.originals)
        return InvertedResidual.from_convs(expand, depthwise, project, residual=self.residual)


def join(traced: fx.GraphModule) -> None:
    """Put every three blocks of ``traced`` that the operator can compute into a ``Triple``, in place."""
    for node in list(traced.graph.nodes):
        found = _triple(traced, node)
        if found is None:
            continue
        expand, depthwise = found
        blocks = [_block(traced, each) for each in (expand, depthwise, node)]
        parent, _, own = str(node.target).rpartition(".")
        setattr(traced.get_submodule(parent), own, Triple(*cast(Blocks, tuple(blocks))))
        with traced.graph.inserting_before(node):
            joined = traced.graph.call_module(str(node.target), expand.args)
        node.replace_all_uses_with(joined)
        for each in (node, depthwise, expand):
            traced.graph.erase_node(each)
    traced.delete_all_unused_submodules()
    traced.recompile()


def _triple(traced: fx.GraphModule, project: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The nodes in front of ``project`` that make an inverted residual with it."""
    last, depthwise = _block(traced, project), project.args[0] if project.args else None
    middle = _block(traced, depthwise)
    expand = depthwise.args[0] if isinstance(depthwise, fx.Node) and middle else None
    first = _block(traced, expand)
    if first is None or middle is None or last is None:
        return None
    assert isinstance(expand, fx.Node) and isinstance(depthwise, fx.Node)
    kinds = [block.activation for block in (first, middle, last)]
    alone = len(expand.users) == len(depthwise.users) == 1 and not (first.residual or middle.residual)
    around = not last.residual or project.args[1] is expand.args[0]
    if kinds != ["relu6", "relu6", None] or not alone or not around:
        return None
    convs = [block.layer for block in (first, middle, last) if isinstance(block.layer, nn.Conv2d)]
    calls = [
        node for node in traced.graph.nodes if node.op == "call_module" and node.target == project.target
    ]
    if len(calls) > 1:
        return None  # its place in the model is needed as it is
    if len(convs) < 3 or place.is_gpu(convs[0].weight.device):
        return None
    if InvertedResidual.why_not(convs[0], convs[1], convs[2], last.residual):
        return None
    return expand, depthwise


def _block(traced: fx.GraphModule, node: object) -> Block | None:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = traced.get_submodule(str(node.target))
    return module if isinstance(module, Block) else None
