"""The inverted residual of MobileNetV2 (Sandler et al., CVPR 2018): three blocks that one operator computes.

Its wide middle never reaches memory, which pays where it would not have stayed in a cache. The first one of
the network expands nothing: it is two blocks.
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

Blocks = tuple[Block | None, Block, Block]


class Triple(nn.Module):
    """``project(depthwise(expand(input)))``, plus ``input`` where ``project`` adds a residual.

    They are measured and replaced one by one, and then all of them together: ``originals`` are kept for that.
    """

    def __init__(self, expand: Block | None, depthwise: Block, project: Block) -> None:
        super().__init__()
        self.residual = project.residual
        self.originals: Blocks | None = (expand, depthwise, project)
        self.expand, self.depthwise, self.project = expand, depthwise, project

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.depthwise(input if self.expand is None else self.expand(input))
        output: Tensor = self.project(hidden, input) if self.residual else self.project(hidden)
        return output

    def exact(self, input: Tensor) -> Tensor:
        """As the originals compute it in float64."""
        assert self.originals is not None
        original = Triple(*copy.deepcopy(self.originals)).double()
        output: Tensor = original(input)
        return output

    def fused(self) -> nn.Module:
        assert self.originals is not None
        convs = [None if block is None else cast(nn.Conv2d, block.layer) for block in self.originals]
        expand, depthwise, project = cast(tuple[nn.Conv2d | None, nn.Conv2d, nn.Conv2d], tuple(convs))
        return InvertedResidual.from_convs(expand, depthwise, project, residual=self.residual)


def join(traced: fx.GraphModule) -> None:
    """Put all blocks of ``traced`` that the operator can compute together into a ``Triple``, in place."""
    for node in list(traced.graph.nodes):
        found = _triple(traced, node, expands=True) or _triple(traced, node, expands=False)
        if found is None:
            continue
        expand, depthwise = found
        blocks = [_block(traced, each) for each in (expand, depthwise, node)]
        parent, _, own = str(node.target).rpartition(".")
        setattr(traced.get_submodule(parent), own, Triple(*cast(Blocks, tuple(blocks))))
        with traced.graph.inserting_before(node):
            joined = traced.graph.call_module(str(node.target), (expand or depthwise).args)
        node.replace_all_uses_with(joined)
        for each in filter(None, (node, depthwise, expand)):
            traced.graph.erase_node(each)
    traced.delete_all_unused_submodules()
    traced.recompile()


def _triple(traced: fx.GraphModule, project: fx.Node, expands: bool) -> tuple[fx.Node | None, fx.Node] | None:
    """The nodes in front of ``project`` that make an inverted residual with it."""
    nodes = [project]
    for _ in range(2 if expands else 1):
        before = nodes[0].args[0] if _block(traced, nodes[0]) and nodes[0].args else None
        if not isinstance(before, fx.Node) or _block(traced, before) is None:
            return None
        nodes.insert(0, before)
    blocks = [cast(Block, _block(traced, node)) for node in nodes]
    *inner, last = blocks
    alone = all(len(node.users) == 1 for node in nodes[:-1]) and not any(block.residual for block in inner)
    around = not last.residual or project.args[1] is nodes[0].args[0]
    kinds = all(block.activation == "relu6" for block in inner) and last.activation is None
    if not kinds or not alone or not around:
        return None
    calls = [
        node for node in traced.graph.nodes if node.op == "call_module" and node.target == project.target
    ]
    if len(calls) > 1:
        return None  # its place in the model is needed as it is
    convs = [block.layer for block in blocks if isinstance(block.layer, nn.Conv2d)]
    if len(convs) < len(blocks) or place.is_gpu(convs[0].weight.device):
        return None
    expand = convs[0] if expands else None
    if InvertedResidual.why_not(expand, convs[-2], convs[-1], last.residual):
        return None
    return (nodes[0] if expands else None), nodes[-2]


def _block(traced: fx.GraphModule, node: object) -> Block | None:
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = traced.get_submodule(str(node.target))
    return module if isinstance(module, Block) else None
