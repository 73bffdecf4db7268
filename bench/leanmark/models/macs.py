"""Exact multiply-accumulates of one forward pass, and a counter of FLOPs for anything else.

torch's own counter knows matrix products, convolutions and the attention kernels of GPUs. On the CPU it
counts nothing for an LSTM, for scaled dot-product attention and for the fused inference path of
``nn.TransformerEncoder``: the first two are added here, the third is kept from running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

_Shape = Sequence[int]


def count_macs(module: nn.Module, inputs: Tensor) -> int:
    """Multiply-accumulates of ``module(inputs)``, in evaluation mode; the module stays as it was.

    Counts products of matrices, convolutions, recurrent layers and attention (a causal mask saves
    nothing); additions of a bias, normalisations and activations count nothing.
    """
    with torch.inference_mode(False), torch.no_grad(), _evaluating(module), counting_flops() as counter:
        module(inputs)
    return counter.get_total_flops() // 2


@contextmanager
def counting_flops() -> Iterator[FlopCounterMode]:
    """torch's counter with what it misses on a CPU, for everything inside, backward passes included."""
    with _Unfused(), FlopCounterMode(display=False, custom_mapping=_MISSING) as counter:
        yield counter


class _Unfused(TorchFunctionMode):
    """Changes no call, but while it is active the fused inference paths of attention step aside.

    ``torch.backends.mha.set_fastpath_enabled`` would do so too, for the whole process.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def _rnn_layer(inputs: _Shape, input_weight: _Shape, hidden_weight: _Shape, *_: Any, **__: Any) -> int:
    """One layer in one direction: ``inputs`` [T, B, I], weights [4 H, I] and [4 H, H]."""
    return 2 * prod(inputs[:-1]) * (prod(input_weight) + prod(hidden_weight))


def _attention(query: _Shape, key: _Shape, value: _Shape, *_: Any, **__: Any) -> int:
    """Scores and their products with the values: [B, H, L, E], [B, H, S, E], [B, H, S, V]."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _rnn_layer_backward(
    inputs: _Shape, input_weight: _Shape, hidden_weight: _Shape, *_: Any, **__: Any
) -> int:
    """Twice the forward products: gradients of the inputs and of the weights."""
    return 2 * _rnn_layer(inputs, input_weight, hidden_weight)


def _attention_backward(
    _gradient: _Shape, query: _Shape, key: _Shape, value: _Shape, *_: Any, **__: Any
) -> int:
    """Five products of all tokens with all tokens: the scores again, then the gradients of scores and of
    query, key and value (Dao et al., "FlashAttention", NeurIPS 2022, algorithm 4)."""
    return 2 * prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def _matrix_vector(matrix: _Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _add_matrix_vector(_bias: _Shape, matrix: _Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


_MISSING: dict[Any, Callable[..., int]] = {
    torch.ops.aten.mkldnn_rnn_layer: _rnn_layer,
    torch.ops.aten.mkldnn_rnn_layer_backward: _rnn_layer_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten.mv: _matrix_vector,
    torch.ops.aten.addmv: _add_matrix_vector,
    torch.ops.aten.dot: _matrix_vector,
}
