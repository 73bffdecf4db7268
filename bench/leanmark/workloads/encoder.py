"""A transformer encoder of the size of BERT-base (Devlin et al., NAACL 2019), random weights.

Pre-norm rather than BERT's post-norm: the same products, and random weights neither vanish nor explode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from leanmark.workloads import untrained
from leanmark.workloads.base import Dataset
from leanmark.workloads.training import seeded

_CLASSES = 2
_TESTS = 16


class SelfAttention(nn.Module):
    """All heads in one product: [N, T, W] -> [N, T, W]. ``causal`` hides later tokens."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.split(x)
        mixed = scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.join(mixed)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [N, heads, T, W / heads]."""
        n, t, width = x.shape
        parts = self.project(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def join(self, mixed: Tensor) -> Tensor:
        """[N, heads, T, W / heads] -> [N, T, W]."""
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Attention and a feed-forward part of four times the width, each around a shortcut."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention: nn.Module = SelfAttention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.feed(self.norm2(x))
        return out


class Embedding(nn.Module):
    """Tokens and their places: [N, T] int64 -> [N, T, W]."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, tokens: Tensor, first: int = 0) -> Tensor:
        out: Tensor = self.token(tokens) + self.place[first : first + tokens.shape[1]]
        return out


class Encoder(nn.Module):
    """Tokens [N, T] int64 -> scores [N, 2] from the first token, as BERT classifies."""

    def __init__(self, width: int, heads: int, layers: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.embed = Embedding(vocabulary, length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.classify = nn.Linear(width, _CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        first = self.norm(self.blocks(self.embed(tokens)))[:, 0]
        out: Tensor = self.classify(self.pool(first))
        return out


@dataclass(frozen=True, slots=True)
class BertBase(untrained.Untrained):
    """109 million parameters at the default size."""

    sequences = True
    width: int = 768
    heads: int = 12
    layers: int = 12
    vocabulary: int = 30522
    length: int = 128

    quantization = "dynamic"

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return Encoder(self.width, self.heads, self.layers, self.vocabulary, self.length)

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return Encoder(self.width // 2, self.heads // 2, self.layers // 2, self.vocabulary, self.length)

    def dataset(self) -> Dataset:
        inputs = untrained.tokens(self.length, self.vocabulary, _TESTS)
        return untrained.classified(inputs, _CLASSES)
