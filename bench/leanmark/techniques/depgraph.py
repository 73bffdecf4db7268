"""Structured pruning of convolutions, linear layers and attention with torch-pruning's DepGraph.

Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023. The widths are chosen here, not by
torch-pruning's BasePruner: with ``round_to`` it rounds a narrow layer down to nothing and then leaves
the whole layer unpruned without a word (Torch-Pruning issue 417).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

_CONVOLUTION = nn.modules.conv._ConvNd
_ROOTS = (_CONVOLUTION, nn.Linear)


def prune_channels(model: nn.Module, example: Tensor, kept: Callable[[int, int], int]) -> bool:
    """Remove the channels with the smallest group L2 norm from every hidden layer of ``model``, in place.

    ``kept(width, step)`` says how many of ``width`` channels stay; it must return a multiple of ``step``
    (attention heads, groups of a convolution or normalization keep their number). Layers that make the
    model's output or a recurrent layer's input keep their width. Returns whether anything changed.
    """
    graph, ends = _trace(model, example)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    removals = []
    for group in list(graph.get_all_groups(root_module_types=list(_ROOTS))):
        dependency = group[0].dep
        width = graph.get_out_channels(dependency.target.module)
        step = _step(graph, group)
        removed = width - kept(width, step)
        if removed <= 0 or any(_reaches_an_end(graph, item.dep, ends) for item in group):
            continue
        with torch.no_grad():
            scores = importance(group)
        removals.append((dependency, _weakest(scores, removed, step)))
    for dependency, channels in removals:
        graph.get_pruning_group(dependency.target.module, dependency.handler, channels).prune()
    return bool(removals)


def _trace(model: nn.Module, example: Tensor) -> tuple[tp.DependencyGraph, set[Any]]:
    """The dependency graph, and the gradient functions of everything whose width is fixed."""
    ends: list[Tensor] = []

    def forward(traced: nn.Module, inputs: Tensor) -> list[Tensor]:
        ends.append(traced(inputs))
        return ends

    with torch.enable_grad(), _cut_at_recurrent_layers(model, ends), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about parameters outside modules, which it then handles
        graph = tp.DependencyGraph().build_dependency(
            model, example_inputs=example, forward_fn=forward, verbose=False
        )
    return graph, {end.grad_fn for end in ends}


@contextmanager
def _cut_at_recurrent_layers(model: nn.Module, ends: list[Tensor]) -> Iterator[None]:
    """End the trace at the input of each recurrent layer and begin it anew at its output."""

    def cut(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Any) -> Any:
        if inputs[0].grad_fn is not None:
            ends.append(inputs[0])
        return _detached(outputs)

    hooks = [layer.register_forward_hook(cut) for layer in model.modules() if isinstance(layer, nn.RNNBase)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _detached(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.detach()
    return tuple(_detached(output) for output in outputs)


def _reaches_an_end(graph: tp.DependencyGraph, dependency: Any, ends: set[Any]) -> bool:
    node = dependency.target
    if isinstance(node.module, _ROOTS) and not graph.is_out_channel_pruning_fn(dependency.handler):
        return False
    return node.grad_fn in ends


def _step(graph: tp.DependencyGraph, group: Any) -> int:
    """Channels that must go together: heads and groups that span this group of layers."""
    step = 1
    for item in group:
        module = item.dep.target.module
        pruner = graph.get_pruner_of_module(module)
        if isinstance(module, _CONVOLUTION) and module.groups == module.out_channels:
            continue  # depthwise: each channel is a group of its own and goes alone
        if isinstance(module, nn.MultiheadAttention):
            step = math.lcm(step, module.num_heads)
        elif graph.is_out_channel_pruning_fn(item.dep.handler):
            step = math.lcm(step, pruner.get_out_channel_groups(module))
        else:
            step = math.lcm(step, pruner.get_in_channel_groups(module))
    return step


def _weakest(scores: Tensor, removed: int, step: int) -> list[int]:
    """``removed`` channels, the same positions in each of ``step`` equal slices."""
    slices = scores.view(step, -1)
    positions = slices.sum(0).argsort()[: removed // step]
    starts = torch.arange(step)[:, None] * slices.shape[1]
    return sorted((starts + positions[None, :].cpu()).flatten().tolist())
