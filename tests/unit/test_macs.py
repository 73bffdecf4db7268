"""MACs against formulas worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from leanmark.models.macs import count_macs

_GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


class _Attention(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x, **self.options)


class _SelfAttention(nn.Module):
    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(x, x, x, need_weights=self.weights)[0]
        return out


def _attention_block(tokens: int, width: int) -> int:
    """Four projections and two products of all tokens with all tokens."""
    return 4 * tokens * width * width + 2 * tokens * tokens * width


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Conv2d(4, 8, 3), (1, 4, 10, 10), 8 * 8 * 8 * 4 * 9),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), (1, 4, 10, 10), 5 * 5 * 8 * 4 * 9),
        (nn.Conv2d(8, 16, 3, groups=4), (1, 8, 10, 10), 8 * 8 * 16 * 2 * 9),
        (nn.Conv1d(4, 8, 5, bias=False), (1, 4, 20), 16 * 8 * 4 * 5),
        (nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), (1, 8, 5, 5), 5 * 5 * 8 * 4 * 16),
        (nn.ConvTranspose2d(8, 4, 2, stride=2, groups=2), (1, 8, 5, 5), 5 * 5 * 8 * 2 * 4),
        (nn.Linear(16, 32), (1, 16), 16 * 32),
        (nn.Linear(16, 32, bias=False), (1, 7, 16), 7 * 16 * 32),
        (nn.Linear(16, 32), (16,), 16 * 32),
        (nn.Linear(16, 32, bias=False), (16,), 16 * 32),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()), (1, 3, 4, 4), 0),
    ],
)
def test_convolutions_and_linear_layers(module: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    assert count_macs(module, torch.rand(shape)) == expected


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers(
    kind: type[nn.LSTM] | type[nn.GRU] | type[nn.RNN], layers: int, bidirectional: bool
) -> None:
    steps, inputs, hidden, directions = 5, 8, 16, 1 + bidirectional
    module = kind(inputs, hidden, layers, bidirectional=bidirectional, batch_first=True)
    widths = [inputs] + [hidden * directions] * (layers - 1)
    expected = sum(steps * directions * _GATES[kind] * hidden * (width + hidden) for width in widths)

    assert count_macs(module, torch.rand(1, steps, inputs)) == expected


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.zeros(8, 8)}])
def test_scaled_dot_product_attention(options: dict[str, object]) -> None:
    heads, tokens, width = 2, 8, 16

    macs = count_macs(_Attention(**options), torch.rand(1, heads, tokens, width))

    assert macs == 2 * heads * tokens * tokens * width


@pytest.mark.parametrize("weights", [False, True])
def test_multihead_attention(weights: bool) -> None:
    assert count_macs(_SelfAttention(weights=weights), torch.rand(1, 8, 64)) == _attention_block(8, 64)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_encoder_counts_the_same_in_every_mode(training: bool, gradients: bool, frozen: bool) -> None:
    tokens, width, inner, layers = 8, 64, 128, 2
    layer = nn.TransformerEncoderLayer(width, 4, inner, dropout=0.1, batch_first=True)
    encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
    encoder.requires_grad_(not frozen).train(training)
    expected = layers * (_attention_block(tokens, width) + 2 * tokens * width * inner)

    with torch.set_grad_enabled(gradients):
        assert count_macs(encoder, torch.rand(1, tokens, width)) == expected
    with torch.inference_mode():
        assert count_macs(encoder, torch.rand(1, tokens, width)) == expected


def test_autocast_changes_nothing() -> None:
    class Autocast(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out: torch.Tensor = self.module(x)
            return out

    plain = nn.Sequential(nn.Linear(16, 64), _SelfAttention(weights=False))
    inputs = torch.rand(1, 8, 16)

    assert count_macs(Autocast(plain), inputs) == count_macs(plain, inputs) > 0


def test_module_and_process_stay_as_they_were() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    module.train()
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.random.get_rng_state()
    fastpath = torch.backends.mha.get_fastpath_enabled()

    count_macs(module, torch.ones(1, 1, 8, 8))

    assert [part.training for part in module] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert torch.backends.mha.get_fastpath_enabled() == fastpath
    assert torch.is_grad_enabled()
