"""Layers by the operators of this package, for inference; saved and loaded through ``state_dict``.

Each is made from a trained layer, which it computes as, on its device and in its dtype: float16, bfloat16 or
float32. ``activation`` follows it, after a residual that ``forward`` is given, of the shape of the output.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from leanmark_kernels.integer_packing import quantize_channels
from leanmark_kernels.packed_state import PackedModule
from leanmark_kernels.triton import packing
from leanmark_kernels.triton.arguments import FLOATING
from leanmark_kernels.triton.block_sparse import block_sparse_linear
from leanmark_kernels.triton.conv2d import fused_conv2d
from leanmark_kernels.triton.depthwise import LARGEST_KERNEL, depthwise_conv2d
from leanmark_kernels.triton.linear import LONGEST_INT8, fused_linear, int8_linear
from leanmark_kernels.triton.packing import Blocks, pack_blocks, pack_weight_only
from leanmark_kernels.triton.quantize import quantize_activations
from leanmark_kernels.triton.weight_only import weight_only_linear


class _Linear(PackedModule):
    """``options`` are what the layout depends on, besides the two sizes."""

    def __init__(self, linear: nn.Linear, activation: str, **options: int) -> None:
        super().__init__(in_features=linear.in_features, out_features=linear.out_features, **options)
        self.activation = activation

    @staticmethod
    def why_not(linear: nn.Linear) -> str | None:
        """Why ``linear`` has to stay with torch, or ``None`` where this layer can replace it."""
        if 0 in linear.weight.shape:
            return f"weight is {list(linear.weight.shape)}; it must not be empty"
        return _why_not_dtype(linear.weight)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, activation={self.activation}"


class FusedLinear(_Linear):
    """:func:`leanmark_kernels.triton.fused_linear`, whose numerics it shares."""

    layout = "triton_fused_linear"

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, activation: str = "none") -> Self:
        layer = cls(linear, activation)
        layer.hold(weight=linear.weight.detach().clone(), bias=_copy(linear.bias))
        return layer

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return fused_linear(input, self.weight, self.bias, residual, activation=self.activation)


class WeightOnlyLinear(_Linear):
    """:func:`leanmark_kernels.triton.weight_only_linear`, whose numerics it shares, for few rows.

    ``bits`` is 8, with a scale per output, or 4, with one per 128 weights.
    """

    layout = "triton_weight_only_linear"
    scale: Tensor

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, bits: int, activation: str = "none") -> Self:
        units = -(-linear.in_features // packing.UNIT)
        group_size = packing.UNIT * (units if bits == 8 else 1)
        layer = cls(linear, activation, bits=bits, group_size=group_size)
        weight, scale = pack_weight_only(linear.weight, bits, group_size)
        layer.hold(weight=weight, scale=scale, bias=_copy(linear.bias))
        return layer

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        return weight_only_linear(
            input,
            self.weight,
            self.scale,
            self.bias,
            residual,
            group_size=self.options["group_size"],
            activation=self.activation,
        )


class Int8Linear(_Linear):
    """Weights rounded to int8 per output, activations per row and call; products are exact.

    By :func:`leanmark_kernels.triton.int8_linear`, for any number of rows: ``torch._int_mm`` on a GPU asks
    for more than 16.
    """

    layout = "triton_int8_linear"
    scale: Tensor

    @staticmethod
    def why_not(linear: nn.Linear) -> str | None:
        if linear.in_features > LONGEST_INT8:
            return f"in_features is {linear.in_features}; past {LONGEST_INT8} sums overflow 32 bits"
        return _Linear.why_not(linear)

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, activation: str = "none") -> Self:
        layer = cls(linear, activation)
        weight, scale = quantize_channels(linear.weight.detach().float())
        layer.hold(weight=weight, scale=scale, bias=_copy(linear.bias))
        return layer

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        values, scale = quantize_activations(input)
        return int8_linear(
            values,
            self.weight,
            scale,
            self.scale,
            self.bias,
            residual,
            activation=self.activation,
            dtype=input.dtype,
        )


class BlockSparseLinear(_Linear):
    """:func:`leanmark_kernels.triton.block_sparse_linear`: square blocks of zeros are left out.

    A block has ``block`` x ``block`` weights, 64 or 128.
    """

    layout = "triton_block_sparse_linear"
    values: Tensor
    columns: Tensor
    offsets: Tensor
    order: Tensor

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, block: int, activation: str = "none") -> Self:
        """Raises ``ValueError`` where a side of the weight is not a multiple of ``block``."""
        blocks = pack_blocks(linear.weight, block)
        layer = cls(linear, activation, block=block, blocks=len(blocks.values))
        layer.hold(
            values=blocks.values,
            columns=blocks.columns,
            offsets=blocks.offsets,
            order=blocks.order,
            bias=_copy(linear.bias),
        )
        return layer

    @property
    def sparsity(self) -> float:
        """The share of weights that are not stored."""
        whole = self.options["in_features"] * self.options["out_features"]
        return 1.0 - self.values.numel() / whole

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        blocks = Blocks(self.values, self.columns, self.offsets, self.order)
        return block_sparse_linear(input, blocks, self.bias, residual, activation=self.activation)


class _Conv2d(PackedModule):
    """The weight is held in two dimensions, as the kernel reads it, so that nothing that goes over a model
    changes its layout, and each call only views it."""

    def __init__(self, conv: nn.Conv2d, activation: str) -> None:
        height, width = conv.kernel_size
        super().__init__(
            in_channels=conv.in_channels,
            out_channels=conv.out_channels,
            kernel_height=height,
            kernel_width=width,
        )
        assert not isinstance(conv.padding, str)
        self.activation = activation
        self.stride, self.padding, self.dilation = conv.stride[0], conv.padding[0], conv.dilation[0]

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, activation={self.activation}"
        )


class FusedConv2d(_Conv2d):
    """:func:`leanmark_kernels.triton.fused_conv2d`, whose numerics it shares."""

    layout = "triton_fused_conv2d"

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can replace it."""
        if conv.groups != 1:
            return f"groups is {conv.groups}; it must be 1"
        return _why_not_window(conv) or _why_not_dtype(conv.weight)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, activation: str = "none") -> Self:
        layer = cls(conv, activation)
        filters = conv.weight.detach().permute(0, 2, 3, 1).flatten(1).clone()
        layer.hold(weight=filters, bias=_copy(conv.bias))
        return layer

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        sizes = (self.options[name] for name in ("kernel_height", "kernel_width", "in_channels"))
        return fused_conv2d(
            input,
            self.weight.unflatten(1, tuple(sizes)).permute(0, 3, 1, 2),
            self.bias,
            residual,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            activation=self.activation,
        )


class DepthwiseConv2d(_Conv2d):
    """:func:`leanmark_kernels.triton.depthwise_conv2d`, whose numerics it shares."""

    layout = "triton_depthwise_conv2d"

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can replace it."""
        if not conv.groups == conv.in_channels == conv.out_channels:
            return f"groups is {conv.groups}; it must be as many as in_channels and out_channels"
        if max(conv.kernel_size) > LARGEST_KERNEL:
            return f"kernel_size is {conv.kernel_size}; it must be up to {LARGEST_KERNEL}"
        return _why_not_window(conv) or _why_not_dtype(conv.weight)

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, activation: str = "none") -> Self:
        layer = cls(conv, activation)
        taps = conv.weight.detach().flatten(1).t().clone(memory_format=torch.contiguous_format)
        layer.hold(weight=taps, bias=_copy(conv.bias))
        return layer

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        size = self.options["kernel_height"], self.options["kernel_width"]
        return depthwise_conv2d(
            input,
            self.weight.unflatten(0, size).permute(2, 0, 1)[:, None],
            self.bias,
            residual,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            activation=self.activation,
        )


def _why_not_dtype(weight: Tensor) -> str | None:
    return None if weight.dtype in FLOATING else f"weight is {weight.dtype}; the kernels have no such product"


def _why_not_window(conv: nn.Conv2d) -> str | None:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return f"padding is {conv.padding}, {conv.padding_mode}; it must be a pair of numbers, zeros"
    for name in ("stride", "padding", "dilation"):
        first, second = getattr(conv, name)
        if first != second:
            return f"{name} is {getattr(conv, name)}; it must be the same on both axes"
    return None


def _copy(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach().clone()
