"""Finds the layers of a model and what can be computed with them: batch norm, a residual, an activation."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from leanmark_kernels.convert import place
from leanmark_kernels.convert.attention import Attention
from leanmark_kernels.convert.block import Block, Pool
from leanmark_kernels.convert.triples import join

Arguments = tuple[Any, ...]

_NORMS: dict[type[nn.Module], type[nn.BatchNorm1d | nn.BatchNorm2d]] = {
    nn.Conv2d: nn.BatchNorm2d,
    nn.Linear: nn.BatchNorm1d,
}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_ACTIVATION_MODULES = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.GELU: "gelu", nn.SiLU: "silu"}
_ACTIVATION_CALLS: dict[object, str] = {
    torch.relu: "relu", torch.relu_: "relu", F.relu: "relu", F.relu_: "relu", "relu": "relu",
    "relu_": "relu", F.relu6: "relu6", F.gelu: "gelu", F.silu: "silu",
}  # fmt: skip
_READING = (
    nn.MultiheadAttention.forward,
    nn.TransformerEncoderLayer.forward,
    nn.TransformerEncoder.forward,
    nn.TransformerDecoder.forward,
)
"""Code of torch's that a class of a user's own may inherit."""
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True, slots=True)
class Untraced:
    """A module whose code torch.fx cannot follow: its layers are replaced one by one, nothing is fused."""

    module: str
    reason: str


def fuse(
    module: nn.Module, name: str, inputs: Mapping[nn.Module, Arguments], untraced: list[Untraced]
) -> nn.Module:
    """``module`` with every layer in a ``Block``; changed in place where its code cannot be traced.

    ``inputs`` are the arguments of the first call of each module; what was never called stays as it is.
    """
    if module not in inputs or looks_into_children(module):
        return module
    if type(module) in _NORMS:
        return Block(module)
    if not any(type(part) in _NORMS for part in module.modules()):
        return module
    if isinstance(module, Attention):  # a trace of it alone would not know which of its inputs are one
        return _fuse_parts(module, name, inputs, untraced)
    try:
        return _fuse_graph(_traced(module, inputs[module]))
    except Exception as error:  # a model's own code may raise anything when it is called with proxies
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    known = len(untraced)
    _fuse_parts(module, name, inputs, untraced)
    if len(untraced) == known:  # or it is only that part of it which cannot be traced
        untraced.append(Untraced(name or type(module).__name__, reason))
    return module


def _fuse_parts(
    module: nn.Module, name: str, inputs: Mapping[nn.Module, Arguments], untraced: list[Untraced]
) -> nn.Module:
    for child_name, child in _called(module, inputs):
        path = f"{name}.{child_name}" if name else child_name
        parent_name, _, own = child_name.rpartition(".")
        setattr(module.get_submodule(parent_name), own, fuse(child, path, inputs, untraced))
    return module


def _called(module: nn.Module, inputs: Mapping[nn.Module, Arguments]) -> Iterator[tuple[str, nn.Module]]:
    """The nearest parts by name that are called: of a part whose code is passed by, its parts."""
    for name, child in list(module.named_children()):
        if child in inputs:
            yield name, child
        elif not looks_into_children(child):
            yield from ((f"{name}.{inner}", one) for inner, one in _called(child, inputs))


def looks_into_children(module: nn.Module) -> bool:
    """torch's own modules read their children's weights, so theirs are left alone."""
    if type(module).forward in _READING:
        return True
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    return type(module).__module__.startswith("torch.nn") and type(module) not in (*_NORMS, nn.Module)


def _traced(module: nn.Module, arguments: Arguments) -> fx.GraphModule:
    traced = fx.symbolic_trace(module)
    for node in traced.graph.nodes:
        node.type = None  # annotations that are strings cannot be saved
        if node.op == "call_method" and node.target == "view" and not _has_dtype(node):
            node.target = "reshape"  # in channels_last, not every view exists
    traced.recompile()
    ShapeProp(traced).propagate(*arguments)
    return traced


def _has_dtype(node: fx.Node) -> bool:
    return any(isinstance(argument, torch.dtype) for argument in node.args)


def _fuse_graph(traced: fx.GraphModule) -> fx.GraphModule:
    graph = traced.graph
    for node in list(graph.nodes):
        if isinstance(_module(traced, node), _NOTHING):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    for node in list(graph.nodes):
        if type(_module(traced, node)) in _NORMS and _only_use(traced, node):
            _fold_norm(traced, node)
            _absorb(traced, node)
    graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    _put_into_blocks(traced)
    join(traced)
    return traced


def _put_into_blocks(traced: fx.GraphModule) -> None:
    """Pools, and the layers that are called more than once, unless the code also reads their parameters."""
    read = {str(node.target).rpartition(".")[0] for node in traced.graph.nodes if node.op == "get_attr"}
    for node in traced.graph.nodes:
        layer = _module(traced, node)
        if layer is None or str(node.target) in read:
            continue
        if type(layer) in _NORMS or (type(layer) in get_args(Pool) and _pools_images(traced, layer)):
            _set_module(traced, node, Block(layer))


def _pools_images(traced: fx.GraphModule, pool: nn.Module) -> bool:
    """Whether every call gives ``pool`` what operators of ours pool: float32 [N, C, H, W] on a processor."""
    on_gpu = any(place.is_gpu(parameter.device) for parameter in traced.parameters())
    calls = (node for node in traced.graph.nodes if _module(traced, node) is pool)
    return not on_gpu and all(_is_given_images(node) for node in calls)


def _is_given_images(node: fx.Node) -> bool:
    given = node.args[0].meta.get("tensor_meta") if node.args and isinstance(node.args[0], fx.Node) else None
    return given is not None and len(given.shape) == 4 and given.dtype == torch.float32


def _fold_norm(traced: fx.GraphModule, node: fx.Node) -> None:
    """Into the weights of the layer at ``node``, where a batch norm is all that reads it."""
    layer, following = _module(traced, node), _follower(node)
    if layer is None or following is None:
        return
    norm = _module(traced, following)
    if not isinstance(norm, _NORMS[type(layer)]) or not norm.track_running_stats:
        return
    if isinstance(layer, nn.Linear) and len(_shape(node) or ()) != 2:
        return  # it normalises another dimension than the layer's
    fold: Any = fuse_conv_bn_eval if isinstance(layer, nn.Conv2d) else fuse_linear_bn_eval
    _set_module(traced, node, fold(layer, norm))
    following.replace_all_uses_with(node)
    traced.graph.erase_node(following)


def _absorb(traced: fx.GraphModule, node: fx.Node) -> None:
    """Put the layer at ``node`` into a block that also adds and activates, as far as the graph allows."""
    layer = _module(traced, node)
    assert layer is not None
    chain, residual, activation = [node], None, None
    following = _follower(node)
    if following is not None:
        residual = _other_summand(following, node)
        if residual is not None:
            chain.append(following)
            following = _follower(following)
    if following is not None:
        activation = _activation(traced, following)
        if activation is not None:
            chain.append(following)
    _set_module(traced, node, Block(layer, activation, residual is not None))
    if len(chain) == 1:
        return
    with traced.graph.inserting_before(chain[-1]):
        arguments = node.args if residual is None else (*node.args, residual)
        moved = traced.graph.call_module(str(node.target), arguments)
    moved.meta = dict(chain[-1].meta)
    chain[-1].replace_all_uses_with(moved)
    for each in reversed(chain):
        traced.graph.erase_node(each)


def _follower(node: fx.Node) -> fx.Node | None:
    """The only node that reads ``node``."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op != "output" else None


def _other_summand(node: fx.Node, one: fx.Node) -> fx.Node | None:
    """What ``node`` adds to ``one``, if that is a tensor of the same shape and nothing is scaled.

    A parameter is none: that of a model whose example is a batch of 1 is broadcast to any other batch.
    """
    if node.target not in _ADDITIONS or node.kwargs or len(node.args) != 2:
        return None
    other = node.args[1] if node.args[0] is one else node.args[0]
    if not isinstance(other, fx.Node) or other is one or not _from_input(other):
        return None
    return other if _shape(one) is not None and _shape(one) == _shape(other) else None


def _from_input(node: fx.Node) -> bool:
    """Whether any input of the model is computed into ``node``."""
    seen, open_nodes = {node}, [node]
    while open_nodes:
        one = open_nodes.pop()
        if one.op == "placeholder":
            return True
        open_nodes += [each for each in one.all_input_nodes if each not in seen]
        seen.update(one.all_input_nodes)
    return False


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    return getattr(node.meta.get("tensor_meta"), "shape", None)


def _activation(traced: fx.GraphModule, node: fx.Node) -> str | None:
    module = _module(traced, node)
    if module is not None:
        exact = getattr(module, "approximate", "none") == "none"
        return _ACTIVATION_MODULES.get(type(module)) if exact else None
    plain = len(node.args) == 1 and not set(node.kwargs) - {"inplace"}
    if plain and node.op in ("call_function", "call_method"):
        return _ACTIVATION_CALLS.get(node.target)
    return None


def _module(traced: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return traced.get_submodule(str(node.target)) if node.op == "call_module" else None


def _only_use(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether nothing else calls this layer or reads its parameters."""
    name = str(node.target)
    layer = traced.get_submodule(name)
    uses = [
        other
        for other in traced.graph.nodes
        if (other.op == "call_module" and traced.get_submodule(str(other.target)) is layer)
        or (other.op == "get_attr" and str(other.target).startswith(f"{name}."))
    ]
    return uses == [node] and len(node.args) == 1 and not node.kwargs


def _set_module(traced: fx.GraphModule, node: fx.Node, module: nn.Module) -> None:
    parent, _, own = str(node.target).rpartition(".")
    setattr(traced.get_submodule(parent), own, module)


def first_inputs(model: nn.Module, example: Arguments) -> dict[nn.Module, Arguments]:
    """The positional arguments of the first call of each module in ``model(*example)`` that has such."""
    found: dict[nn.Module, Arguments] = {}

    def keep(module: nn.Module, arguments: Arguments) -> None:
        if arguments and all(isinstance(argument, Tensor) for argument in arguments):
            found.setdefault(module, arguments)

    hooks = [module.register_forward_pre_hook(keep) for module in model.modules()]
    try:
        model(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return found
