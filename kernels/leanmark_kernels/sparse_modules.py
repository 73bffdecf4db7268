"""Layers with sparse weights, packed and not trained; saved and loaded through ``state_dict``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from leanmark_kernels import _native
from leanmark_kernels.ops.arguments import Pair
from leanmark_kernels.ops.sparse_conv2d import sparse_conv2d
from leanmark_kernels.ops.sparse_linear import sparse_linear
from leanmark_kernels.packed_layer import (
    PackedLayer,
    own_bias,
    padding_of,
    pair,
    reaches,
    require_layer,
    require_replaceable,
)
from leanmark_kernels.sparse_few_rows import pack_few_rows
from leanmark_kernels.sparse_packing import (
    BLOCKS,
    MOST_TAPS,
    SparseWeight,
    pack_sparse,
    slab_channels,
    sparsity,
)

_sparse_linear = torch.ops.leanmark.sparse_linear.default
_sparse_conv2d = torch.ops.leanmark.sparse_conv2d.default


class SparseModule(PackedLayer):
    """A layer that holds a :class:`leanmark_kernels.sparse_packing.SparseWeight`.

    How many entries there are is no option of the layer: the state that is loaded brings its own.
    """

    takes_residual = True
    values: Tensor
    indices: Tensor
    starts: Tensor

    def hold_packed(self, weight: SparseWeight, bias: Tensor | None) -> None:
        self.hold(values=weight.values, indices=weight.indices, starts=weight.starts, bias=bias)

    @property
    def packed(self) -> SparseWeight:
        return SparseWeight(self.values, self.indices, self.starts)

    def dense_size(self) -> int:
        """How many values the weight had before it was packed."""
        raise NotImplementedError

    @property
    def sparsity(self) -> float:
        """The share of the dense weight's values that is not stored."""
        return sparsity(self.packed, self.dense_size())

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:  # the arguments are those of nn.Module
        mine = {key.removeprefix(prefix): state_dict[key] for key in state_dict if key.startswith(prefix)}
        if self.why_refused(mine) is None:
            for name in ("values", "indices"):
                self.register_buffer(name, torch.zeros_like(mine[name], device=self.starts.device))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, sparsity={self.sparsity:.3f}"


class SparseLinear(SparseModule):
    """A linear layer by :func:`leanmark_kernels.sparse_linear`, whose numerics it shares.

    ``block`` is 1 for any pattern of zeros, or 4 where four consecutive outputs share theirs. Made from a
    pruned layer with :meth:`from_dense`; made directly it holds no weights, to load a state into.

    In memory, but not in its state, the layer holds its weight a second time: in the layout for few rows.
    """

    layout = "sparse_linear"
    few_rows: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, *, block: int = 1, bias: bool = True, relu: bool = False
    ) -> None:
        super().__init__(block=block, in_features=in_features, out_features=out_features)
        self.relu = relu
        self.hold_packed(
            _nothing(out_features, in_features, 1, block), torch.zeros(out_features) if bias else None
        )

    def hold_packed(self, weight: SparseWeight, bias: Tensor | None) -> None:
        super().hold_packed(weight, bias)
        self._pack_again()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:  # the arguments are those of nn.Module
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._pack_again()

    def _pack_again(self) -> None:
        again = None
        if _native.available() and self.starts.device.type == "cpu":
            again = pack_few_rows(self.packed, self.options["out_features"], self.options["in_features"])
        self.register_buffer("few_rows", again, persistent=False)

    def dense_size(self) -> int:
        return self.options["in_features"] * self.options["out_features"]

    @classmethod
    def from_dense(cls, linear: nn.Linear, *, block: int = 1, relu: bool = False) -> Self:
        """The layer that computes what ``linear`` does, without the zeros of its weight.

        Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for another block, for weights
        that are not finite and for weights that are all zero.
        """
        require_layer(cls, nn.Linear, linear=linear)
        packed = pack_sparse(linear.weight, block)
        layer = cls(
            linear.in_features, linear.out_features, block=block, bias=linear.bias is not None, relu=relu
        )
        layer.hold_packed(packed, own_bias(linear))
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, options = self._buffers, self.options
        if input.shape[-1] != options["in_features"]:
            self._require_input(input)
        output: Tensor = _sparse_linear(
            input,
            held["values"],
            held["indices"],
            held["starts"],
            held["bias"],
            residual,
            options["out_features"],
            self.relu,
            held["few_rows"],
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return sparse_linear(
            input,
            self.packed,
            self.bias,
            residual,
            out_features=self.options["out_features"],
            relu=self.relu,
            few_rows=self.few_rows,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, relu={self.relu}"


class SparseConv2d(SparseModule):
    """A convolution by :func:`leanmark_kernels.sparse_conv2d`, whose numerics it shares.

    ``block`` is 1 for any pattern of zeros, or 4 where four consecutive outputs share theirs. Made from a
    pruned layer with :meth:`from_dense`; made directly it holds no weights, to load a state into.
    """

    layout = "sparse_conv2d"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        block: int = 1,
        bias: bool = True,
        relu: bool = False,
    ) -> None:
        height, width = kernel_size
        super().__init__(
            block=block, in_channels=in_channels, out_channels=out_channels, height=height, width=width
        )
        self.steps = {"stride": stride, "padding": padding, "dilation": dilation}
        self.window = (*kernel_size, *stride, *padding, *dilation)
        self.relu = relu
        self.hold_packed(
            _nothing(out_channels, in_channels, height * width, block),
            torch.zeros(out_channels) if bias else None,
        )

    def dense_size(self) -> int:
        return math.prod(self.options[name] for name in ("in_channels", "out_channels", "height", "width"))

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can replace it."""
        if conv.padding_mode != "zeros":
            return f"padding_mode is {conv.padding_mode}; it must be zeros"
        if conv.weight.dtype != torch.float32:
            return f"weight is {conv.weight.dtype}; it must be torch.float32"
        if math.prod(conv.kernel_size) > MOST_TAPS:
            return f"kernel_size is {conv.kernel_size}; it must have at most {MOST_TAPS} taps"
        if conv.padding == "same" and any(reach % 2 for reach in reaches(conv)):
            return "padding is same, and kernel_size and dilation make it uneven; it must be even"
        return None

    @classmethod
    def from_dense(cls, conv: nn.Conv2d, *, block: int = 1, relu: bool = False) -> Self:
        """The layer that computes what ``conv`` does, without the zeros of its weight.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, for another block, for weights that are
        not finite and for weights that are all zero.
        """
        require_layer(cls, nn.Conv2d, conv=conv)
        require_replaceable(cls, conv, cls.why_not(conv))
        packed = pack_sparse(conv.weight, block, conv.groups)
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            pair(conv.kernel_size),
            stride=pair(conv.stride),
            padding=padding_of(conv),
            dilation=pair(conv.dilation),
            block=block,
            bias=conv.bias is not None,
            relu=relu,
        )
        layer.hold_packed(packed, own_bias(conv))
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, options = self._buffers, self.options
        if input.shape[1] != options["in_channels"]:
            self._require_input(input)
        output: Tensor = _sparse_conv2d(
            input,
            held["values"],
            held["indices"],
            held["starts"],
            held["bias"],
            residual,
            options["out_channels"],
            self.window,
            self.relu,
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return sparse_conv2d(
            input,
            self.packed,
            self.bias,
            residual,
            out_channels=self.options["out_channels"],
            kernel_size=(self.options["height"], self.options["width"]),
            **self.steps,
            relu=self.relu,
        )

    def extra_repr(self) -> str:
        steps = ", ".join(f"{name}={value}" for name, value in self.steps.items())
        return f"{super().extra_repr()}, {steps}, relu={self.relu}"


def _nothing(rows: int, channels: int, taps: int, block: int) -> SparseWeight:
    """No entries at all: what a state replaces."""
    if block not in BLOCKS:
        raise ValueError(f"block is {block}; it must be 1 or 4")
    if taps > MOST_TAPS:
        raise ValueError(f"kernel_size has {taps} taps; they must be at most {MOST_TAPS}")
    sections = -(-rows // block) * -(-channels // slab_channels(taps))
    return SparseWeight(
        torch.zeros(0, block),
        torch.zeros(0, dtype=torch.uint8),
        torch.zeros(sections + 1, dtype=torch.int32),
    )
