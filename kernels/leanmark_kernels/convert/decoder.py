"""Decoders of ``torch.nn``, and its whole transformer, as modules whose code torch.fx can follow."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from leanmark_kernels.convert.attention import attended


class DecoderLayer(nn.Module):
    """``nn.TransformerDecoderLayer``, whose parts keep their names; hints about masks are not needed."""

    def __init__(
        self, layer: nn.TransformerDecoderLayer, self_attn: nn.Module, multihead_attn: nn.Module
    ) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = self_attn, multihead_attn
        self.linear1, self.linear2 = layer.linear1, layer.linear2
        self.norm1, self.norm2, self.norm3 = layer.norm1, layer.norm2, layer.norm3
        self.norm_first = layer.norm_first
        self.activation: Callable[[Tensor], Tensor] = layer.activation

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        itself = (tgt_mask, tgt_key_padding_mask)
        across = (memory, memory_mask, memory_key_padding_mask)
        if self.norm_first:
            x = self.norm1(tgt)
            x = tgt + attended(self.self_attn, x, x, *itself)
            x = x + attended(self.multihead_attn, self.norm2(x), *across)
            return x + self._feed_forward(self.norm3(x))
        x = self.norm1(tgt + attended(self.self_attn, tgt, tgt, *itself))
        x = self.norm2(x + attended(self.multihead_attn, x, *across))
        result: Tensor = self.norm3(x + self._feed_forward(x))
        return result

    def _feed_forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear2(self.activation(self.linear1(x)))
        return result


class Decoder(nn.Module):
    """``nn.TransformerDecoder``."""

    def __init__(self, decoder: nn.TransformerDecoder, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), decoder.norm

    @staticmethod
    def why_not(decoder: nn.TransformerDecoder) -> str | None:
        """Why ``decoder`` has to stay torch's, or ``None``."""
        for number, layer in enumerate(decoder.layers):
            if type(layer) is not nn.TransformerDecoderLayer:
                return f"its layers.{number} is a {type(layer).__name__}"
        return None

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        output = tgt
        for layer in self.layers:
            output = layer(output, memory, *masks)
        return output if self.norm is None else self.norm(output)


class Transformer(nn.Module):
    """``nn.Transformer``."""

    generate_square_subsequent_mask = staticmethod(nn.Transformer.generate_square_subsequent_mask)

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        result: Tensor = self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
        return result
