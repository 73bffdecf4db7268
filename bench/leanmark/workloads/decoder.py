"""A decoder of the size of GPT-2 (Radford et al., 2019), random weights: reading a prompt, saying a word."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from leanmark.errors import Unsupported
from leanmark.workloads import untrained
from leanmark.workloads.base import Dataset
from leanmark.workloads.encoder import Block, Embedding, SelfAttention
from leanmark.workloads.training import seeded

_TESTS = 4
_TOKENS = 64
"""To judge decoding by: a token costs a hundredth of a prompt."""


class Decoder(nn.Module):
    """Tokens [N, T] int64 -> scores [N, V] of the next one; of every next one, [N, T, V], while training.

    The matrix of the embedding gives the scores too, as in GPT-2.
    """

    def __init__(self, width: int, heads: int, layers: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embed = Embedding(vocabulary, length, width)
        nn.init.normal_(self.embed.token.weight, std=0.02)  # it gives the scores too: they stay small
        self.blocks = nn.Sequential(*(Block(width, heads, causal=True) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, vocabulary, bias=False)
        self.score.weight = self.embed.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.blocks(self.embed(tokens))
        out: Tensor = self.score(self.norm(states if self.training else states[:, -1]))
        return out


class CachedAttention(nn.Module):
    """Attention of one new token over ``context`` earlier ones, whose keys and values are kept.

    The cache is made when first needed, of the dtype and on the device of the keys, and holds noise. Every
    step writes to its last place, so equal steps give equal outputs and allocate nothing.
    """

    def __init__(self, attention: SelfAttention, context: int) -> None:
        super().__init__()
        self.attention, self.context = attention, context
        self._caches: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.attention.split(x)
        cache = self._cache(key)
        cache[0, :, :, self.context] = key[:, :, 0]
        cache[1, :, :, self.context] = value[:, :, 0]
        return self.attention.join(scaled_dot_product_attention(query, cache[0], cache[1]))

    def _cache(self, key: Tensor) -> Tensor:
        """Keys and values [2, N, heads, context + 1, W / heads]."""
        name = (len(key), key.dtype, key.device)
        if name not in self._caches:
            n, heads, _, size = key.shape
            shape = (2, 1, heads, self.context + 1, size)
            with torch.inference_mode(False):  # a cache made while counting is used in inference, and back
                noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
                self._caches[name] = noise.to(key.device, key.dtype).repeat(1, n, 1, 1, 1)
        return self._caches[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_caches": {}}


class Decoding(nn.Module):
    """One new token [N, 1] int64 after ``context`` others -> scores [N, V] of the next."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        super().__init__()
        self.decoder, self.context = decoder, context
        for block in decoder.blocks:
            assert isinstance(block, Block) and isinstance(block.attention, SelfAttention)
            block.attention = CachedAttention(block.attention, context)

    def forward(self, token: Tensor) -> Tensor:
        states = self.decoder.blocks(self.decoder.embed(token, self.context))
        out: Tensor = self.decoder.score(self.decoder.norm(states[:, -1]))
        return out


@dataclass(frozen=True, slots=True)
class Gpt2Prefill(untrained.Untrained):
    """124 million parameters at the default size."""

    sequences = True
    width: int = 768
    heads: int = 12
    layers: int = 12
    vocabulary: int = 50257
    length: int = 512

    quantization = "dynamic"

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return Decoder(self.width, self.heads, self.layers, self.vocabulary, self.length + 1)

    def dataset(self) -> Dataset:
        return untrained.continued(untrained.tokens(self.length, self.vocabulary, _TESTS))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs.float().flatten(0, 1), targets.flatten())


@dataclass(frozen=True, slots=True)
class Gpt2Decode(Gpt2Prefill):
    """One token after ``length`` others; inference only."""

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            decoder = Decoder(self.width, self.heads, self.layers, self.vocabulary, self.length + 1)
        return Decoding(decoder, self.length)

    def dataset(self) -> Dataset:
        return untrained.continued(untrained.tokens(1, self.vocabulary, _TOKENS))

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        raise Unsupported("decoding one token is no training step: train gpt2-prefill")
