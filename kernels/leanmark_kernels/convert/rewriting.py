"""Puts modules that call their layers in the place of torch's attention and transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from leanmark_kernels.convert.attention import (
    Attention,
    CrossAttention,
    Encoder,
    EncoderLayer,
    SelfAttention,
)
from leanmark_kernels.convert.decoder import Decoder, DecoderLayer, Transformer
from leanmark_kernels.convert.fusion import looks_into_children

_WHY_NOT: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.MultiheadAttention: Attention.why_not,
    nn.TransformerEncoderLayer: EncoderLayer.why_not,
    nn.TransformerEncoder: Encoder.why_not,
    nn.TransformerDecoderLayer: lambda _: None,
    nn.TransformerDecoder: Decoder.why_not,
    nn.Transformer: lambda _: None,
}
"""Why one of these has to stay torch's."""


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A module with attention whose layers stay torch's, and why."""

    module: str
    reason: str


def rewrite(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[LeftAlone, ...]]:
    """``model``, changed in place, and what of it stays as it was. ``inputs`` are those of one call."""
    if not any(isinstance(part, nn.MultiheadAttention) for part in model.modules()):
        return model, ()
    rewriter = _Rewriter(_crossed(model, inputs))
    return rewriter.replacement(model, ""), tuple(rewriter.left)


class _Rewriter:
    """``crossed`` are called with different tensors; ``left`` are those that stay torch's."""

    def __init__(self, crossed: set[nn.Module]) -> None:
        self.left: list[LeftAlone] = []
        self._crossed = crossed
        self._known: dict[nn.Module, nn.Module] = {}

    def replacement(self, module: nn.Module, name: str) -> nn.Module:
        """For ``module``, which is itself where there is none; the same wherever it is shared."""
        if module not in self._known:
            self._known[module] = self._new(module, name)
        return self._known[module]

    def _new(self, module: nn.Module, name: str) -> nn.Module:
        reason = _why_not(module)
        if reason is not None:
            self.left.append(LeftAlone(name or type(module).__name__, reason))
            return module
        if type(module) in _WHY_NOT:
            return self._form(module, name)
        for own, child in module._modules.items():
            if child is not None and (found := self._part(module, name, own)) is not child:
                setattr(module, own, found)
        return module

    def _form(self, module: nn.Module, name: str) -> nn.Module:
        match module:
            case nn.MultiheadAttention():
                crossed = module in self._crossed or module.in_proj_weight is None
                return CrossAttention(module) if crossed else SelfAttention(module)
            case nn.TransformerEncoderLayer():
                return EncoderLayer(module, self._part(module, name, "self_attn"))
            case nn.TransformerDecoderLayer():
                attention = (self._part(module, name, part) for part in ("self_attn", "multihead_attn"))
                return DecoderLayer(module, *attention)
            case nn.TransformerEncoder():
                return Encoder(module, self._layers(module, name))
            case nn.TransformerDecoder():
                return Decoder(module, self._layers(module, name))
            case _:
                return Transformer(*(self._part(module, name, part) for part in ("encoder", "decoder")))

    def _part(self, module: nn.Module, name: str, own: str) -> nn.Module:
        return self.replacement(module.get_submodule(own), f"{name}.{own}" if name else own)

    def _layers(self, stack: nn.TransformerEncoder | nn.TransformerDecoder, name: str) -> list[nn.Module]:
        return [self._part(stack, name, f"layers.{number}") for number in range(len(stack.layers))]


def _why_not(module: nn.Module) -> str | None:
    """Why neither ``module`` nor what is in it is replaced."""
    if type(module) in _WHY_NOT:
        return _WHY_NOT[type(module)](module)
    inside = any(isinstance(part, nn.MultiheadAttention) for part in module.modules())
    if inside and looks_into_children(module):
        return f"it is a {type(module).__name__}, whose code is torch's and may read the weights in it"
    return None


def _crossed(model: nn.Module, inputs: tuple[Tensor, ...]) -> set[nn.Module]:
    """The attention that ``model(*inputs)`` calls with different tensors for query, key and value."""
    found: set[nn.Module] = set()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        named = (kwargs[name] for name in ("query", "key", "value") if name in kwargs)
        query, key, value = (*args[:3], *named)
        if not (query is key and key is value):
            found.add(module)

    hooks = [
        part.register_forward_pre_hook(note, with_kwargs=True)
        for part in model.modules()
        if isinstance(part, nn.MultiheadAttention)
    ]
    try:
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found
