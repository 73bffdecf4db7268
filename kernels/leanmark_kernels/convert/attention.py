"""Attention and encoders of ``torch.nn`` as modules that call their layers, so that these can be replaced.

torch's own hand the weights of their layers to operators that compute a whole encoder layer. Here the same is
computed, in inference, as by torch under ``torch.no_grad()``, on [N, T, E] with ``batch_first``, else on
[T, N, E], or on [T, E] without a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

# nodes of a graph that torch.fx traces: what they do depends on which masks are given
fx.wrap("merged_mask")
fx.wrap("without_padding")

_LAYERS = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)

_PARTS: dict[str, type[nn.Module]] = {
    "self_attn": nn.MultiheadAttention,
    "linear1": nn.Linear,
    "linear2": nn.Linear,
    "norm1": nn.LayerNorm,
    "norm2": nn.LayerNorm,
}
"""Of an encoder layer: one of a class of the user's own may be read by torch instead of called."""


class Attention(nn.Module):
    """``nn.MultiheadAttention``; subclasses ``project`` query, key and value, by the layers they name."""

    def __init__(self, attention: nn.MultiheadAttention, **projections: nn.Linear) -> None:
        super().__init__()
        for name, projection in projections.items():
            self.add_module(name, projection)
        self.num_heads, self.batch_first = attention.num_heads, attention.batch_first
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.scale = (self.out_proj.in_features / self.num_heads) ** -0.5

    @staticmethod
    def why_not(attention: nn.MultiheadAttention) -> str | None:
        """Why ``attention`` has to stay torch's, or ``None``."""
        if attention.bias_k is not None or attention.add_zero_attn:
            return "it has add_bias_kv or add_zero_attn, so a key and a value of its own"
        if type(attention.out_proj) not in _LAYERS:
            return f"its out_proj is a {type(attention.out_proj).__name__}"
        return None

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each [.., T, E], or of [T, .., E], the heads [.., H, T, D]."""
        raise NotImplementedError

    def split(self, projected: Tensor, *shape: int) -> Tensor:
        """[.., T, E] or [T, .., E] -> [.., *shape, T, D], where ``shape`` is that of parts and heads."""
        tokens = -2 - len(shape) if self.batch_first else 0
        split: Tensor = projected.unflatten(-1, (*shape, -1)).movedim(tokens, -2)
        return split

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's; ``is_causal``, a hint about ``attn_mask``, is not needed."""
        query, key, value = self.project(query, key, value)
        mask = None
        if attn_mask is not None or key_padding_mask is not None:
            mask = merged_mask(attn_mask, key_padding_mask, query)
        weights: Tensor | None = None
        if need_weights:
            scores = (query * self.scale) @ key.transpose(-2, -1)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            mixed = weights @ value
            weights = weights.mean(-3) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        heads_last = mixed.movedim(-2, -3 if self.batch_first else 0)
        return self.out_proj(heads_last.flatten(-2)), weights


class SelfAttention(Attention):
    """Projects one tensor to query, key and value at once."""

    in_proj: nn.Module

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__(attention, in_proj=_linear(attention.in_proj_weight, attention.in_proj_bias))

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if query is key and key is value:
            query, key, value = self._parts(query)
            return query, key, value
        return self._parts(query)[0], self._parts(key)[1], self._parts(value)[2]

    def _parts(self, given: Tensor) -> tuple[Tensor, ...]:
        return self.split(self.in_proj(given), 3, self.num_heads).unbind(-4)


class CrossAttention(Attention):
    """Projects query, key and value one by one; their widths may differ."""

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        weights: tuple[Tensor, ...]
        packed: Tensor | None = attention.in_proj_weight
        bias: Tensor | None = attention.in_proj_bias
        if packed is None:
            weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        else:
            weights = packed.chunk(3)
        biases = (None, None, None) if bias is None else bias.chunk(3)
        query, key, value = map(_linear, weights, biases)
        super().__init__(attention, q_proj=query, k_proj=key, v_proj=value)

    def project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.q_proj(query), self.k_proj(key), self.v_proj(value)
        heads = self.num_heads
        return self.split(query, heads), self.split(key, heads), self.split(value, heads)


class EncoderLayer(nn.Module):
    """``nn.TransformerEncoderLayer``, whose parts keep their names."""

    def __init__(self, layer: nn.TransformerEncoderLayer, attention: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.norm1, self.norm2 = layer.norm1, layer.norm2
        self.norm_first = layer.norm_first
        self.activation: Callable[[Tensor], Tensor] = layer.activation

    @staticmethod
    def why_not(layer: nn.TransformerEncoderLayer) -> str | None:
        """Why ``layer`` has to stay torch's, or ``None``."""
        for name, kind in _PARTS.items():
            part = layer.get_submodule(name)
            if type(part) is not kind:
                return f"its {name} is a {type(part).__name__}"
        if not _is_what_torch_takes_it_for(layer.activation, layer.activation_relu_or_gelu):
            return f"torch's fast path takes its activation, {layer.activation}, for ReLU or exact GELU"
        return Attention.why_not(layer.self_attn)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        if self.norm_first:
            x = self.norm1(src)
            x = src + attended(self.self_attn, x, x, src_mask, src_key_padding_mask)
            return x + self._feed_forward(self.norm2(x))
        x = self.norm1(src + attended(self.self_attn, src, src, src_mask, src_key_padding_mask))
        result: Tensor = self.norm2(x + self._feed_forward(x))
        return result

    def _feed_forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear2(self.activation(self.linear1(x)))
        return result


class Encoder(nn.Module):
    """``nn.TransformerEncoder``.

    With ``enable_nested_tensor``, torch leaves padding out in inference where every sequence begins with its
    tokens: padded places come out of the last layer as zeros. So they do here.
    """

    def __init__(self, encoder: nn.TransformerEncoder, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), encoder.norm
        self.use_nested_tensor = encoder.use_nested_tensor

    @staticmethod
    def why_not(encoder: nn.TransformerEncoder) -> str | None:
        """Why ``encoder`` has to stay torch's, or ``None``."""
        for number, layer in enumerate(encoder.layers):
            if type(layer) is not nn.TransformerEncoderLayer:
                return f"its layers.{number} is a {type(layer).__name__}"
            reason = EncoderLayer.why_not(layer)
            if reason is not None:
                return f"of its layers.{number}: {reason}"
        return None

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        output = src
        for layer in self.layers:
            output = layer(output, src_mask=mask, src_key_padding_mask=src_key_padding_mask)
        if self.use_nested_tensor and src_key_padding_mask is not None:
            output = without_padding(output, mask, src_key_padding_mask)
        return output if self.norm is None else self.norm(output)


def attended(
    attention: nn.Module, x: Tensor, memory: Tensor, mask: Tensor | None, padding: Tensor | None
) -> Tensor:
    """What the places of ``x`` take from those of ``memory``, without the weights."""
    mixed: Tensor = attention(x, memory, memory, padding, need_weights=False, attn_mask=mask)[0]
    return mixed


def merged_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor) -> Tensor | None:
    """What is added to the scores [.., H, T, S] of ``query`` [.., H, T, D]: both masks, spread to that."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask.unflatten(0, query.shape[:-2]) if attn_mask.dim() == 3 else attn_mask)
    if key_padding_mask is not None:
        masks.append(key_padding_mask[..., None, None, :])
    added = [_added(mask, query.dtype) for mask in masks]
    return sum(added[1:], start=added[0]) if added else None


def without_padding(output: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
    """``output`` [N, T, E] of the last layer as torch has it that leaves padding out: with zeros there."""
    if padding is None or mask is not None or output.dim() != 3:
        return output
    if not torch.backends.mha.get_fastpath_enabled():
        return output
    padded = padding if padding.dtype == torch.bool else padding == -math.inf
    in_front = (padded[:, 1:] >= padded[:, :-1]).all()
    return output.masked_fill((padded & in_front)[..., None], 0.0)


def _is_what_torch_takes_it_for(activation: object, kind: int) -> bool:
    """``kind`` is what torch's operator for a layer is told: 1 for ReLU, 2 for GELU, 0 where it has none."""
    if kind == 2:
        return activation is F.gelu or (type(activation) is nn.GELU and activation.approximate == "none")
    return kind == 0 or activation is F.relu or type(activation) is nn.ReLU


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """``mask`` as numbers to add: minus infinity where one of bools is true."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise TypeError(
            f"attention: a mask is {mask.dtype}; it must be of bools or of floating-point numbers"
        )
    return mask.to(dtype)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of these parameters, the same where they are parameters."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = _parameter(weight)
    if bias is not None:
        linear.bias = _parameter(bias)
    return linear


def _parameter(tensor: Tensor) -> nn.Parameter:
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach())
