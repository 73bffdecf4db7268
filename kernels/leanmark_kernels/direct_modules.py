"""Direct convolutions with packed weights, which are not trained; saved and loaded through ``state_dict``."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from leanmark_kernels import packing
from leanmark_kernels.activations import Activation, activation_number
from leanmark_kernels.ops.arguments import Pair, require_pairs
from leanmark_kernels.ops.direct_conv2d import direct_conv2d
from leanmark_kernels.packed_layer import (
    PackedLayer,
    own_bias,
    padding_of,
    pair,
    require_layer,
    require_replaceable,
)

_direct_conv2d = torch.ops.leanmark.direct_conv2d.default


class DirectConv2d(PackedLayer):
    """A convolution by :func:`leanmark_kernels.direct_conv2d`, whose numerics it shares.

    Made from a trained layer with :meth:`from_conv`; made directly it holds zeros, to load a state into.
    """

    layout = "direct_conv2d"
    shown = ("stride", "padding", "activation")
    takes_residual = True
    takes_any_layout = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        *,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        bias: bool = True,
        activation: Activation = "none",
    ) -> None:
        require_pairs("DirectConv2d", 0, padding=padding)
        require_pairs("DirectConv2d", 1, kernel_size=kernel_size, stride=stride)
        height, width = kernel_size
        super().__init__(
            in_channels=in_channels, out_channels=out_channels, kernel_height=height, kernel_width=width
        )
        self.activation_number = activation_number("DirectConv2d", activation)
        self.activation: Activation = activation
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.window = (*kernel_size, *stride, *padding)
        self.hold(
            weight=packing.pack_direct(torch.zeros(out_channels, in_channels, *kernel_size)),
            bias=torch.zeros(out_channels) if bias else None,
        )

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can replace it."""
        for name, value in (("dilation", (1, 1)), ("groups", 1), ("padding_mode", "zeros")):
            if getattr(conv, name) != value:
                return f"{name} is {getattr(conv, name)}; it must be {value}"
        if conv.padding == "same" and any(size % 2 == 0 for size in conv.kernel_size):
            return f"padding is same with kernel_size {conv.kernel_size}; it must be the same on both sides"
        if conv.weight.dtype != torch.float32:
            return f"weight is {conv.weight.dtype}; it must be torch.float32"
        return None

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, activation: Activation = "none") -> Self:
        """The layer that computes what ``conv`` does, with ``activation`` behind it.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, and for weights that are not finite.
        """
        require_layer(cls, nn.Conv2d, conv=conv)
        require_replaceable(cls, conv, cls.why_not(conv))
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            pair(conv.kernel_size),
            stride=pair(conv.stride),
            padding=padding_of(conv),
            bias=conv.bias is not None,
            activation=activation,
        )
        layer.hold(weight=packing.pack_direct(conv.weight), bias=own_bias(conv))
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, channels = self._buffers, self.options["out_channels"]
        output: Tensor = _direct_conv2d(
            input, held["weight"], held["bias"], residual, channels, self.window, self.activation_number
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return direct_conv2d(
            input,
            self.weight,
            self.bias,
            residual,
            out_channels=self.options["out_channels"],
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            activation=self.activation,
        )
