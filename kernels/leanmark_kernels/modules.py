"""Layers that hold packed weights, which are not trained; saved and loaded through ``state_dict``."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from leanmark_kernels import integer_packing, packing
from leanmark_kernels.ops.arguments import require_whole
from leanmark_kernels.ops.packed_linear import packed_linear
from leanmark_kernels.ops.winograd_conv2d import winograd_conv2d
from leanmark_kernels.packed_layer import (
    PackedLayer,
    own_bias,
    padding_of,
    require_layer,
    require_replaceable,
)
from leanmark_kernels.winograd_forms import FORMS

_packed_linear = torch.ops.leanmark.packed_linear.default
_winograd_conv2d = torch.ops.leanmark.winograd_conv2d.default


class WinogradConv2d(PackedLayer):
    """A 3x3 or 7x7 convolution by :func:`leanmark_kernels.winograd_conv2d`, whose numerics it shares.

    At ``stride`` 1, ``tile`` is 4 for F(4x4, 3x3), usually the fastest, or 2 for F(2x2, 3x3), as exact as a
    direct convolution; at stride 2 it is 2 for 3x3, just as exact, and 3 for 7x7. With ``as_stored``, for
    ``tile`` 4 at stride 1, it holds weights in a quarter of the memory and transforms them in every call.
    Made from a trained layer with :meth:`from_conv`; made directly it holds zeros, to load a state into.
    """

    layout = "winograd_conv2d"
    shown = ("padding", "relu")
    takes_residual = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        tile: int = 4,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int = 1,
        bias: bool = True,
        relu: bool = False,
        as_stored: bool = False,
    ) -> None:
        require_whole("WinogradConv2d", 0, padding=padding)
        super().__init__(
            tile=tile,
            stride=stride,
            as_stored=int(as_stored),
            in_channels=in_channels,
            out_channels=out_channels,
        )
        self.padding, self.relu = padding, relu
        zeros = torch.zeros(out_channels, in_channels, kernel_size, kernel_size)
        self.takes_any_layout = kernel_size == 7  # of which it makes another image in any case
        self.hold(
            weight=packing.pack_winograd(zeros, tile, stride, as_stored=as_stored),
            bias=torch.zeros(out_channels) if bias else None,
        )

    @staticmethod
    def why_not(conv: nn.Conv2d, tile: int = 4) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can with ``tile``."""
        for name, value in (("dilation", (1, 1)), ("groups", 1), ("padding_mode", "zeros")):
            if getattr(conv, name) != value:
                return f"{name} is {getattr(conv, name)}; it must be {value}"
        legal = [form for form in FORMS if form.tile == tile]
        if not legal:
            return f"tile is {tile}; it must be one of {sorted({form.tile for form in FORMS})}"
        kernel, stride = conv.kernel_size, conv.stride
        if not any(((one.kernel,) * 2, (one.stride,) * 2) == (kernel, stride) for one in legal):
            words = " or ".join(f"{one.kernel} with stride {one.stride}" for one in legal)
            return f"kernel_size is {kernel}, stride {stride}; they must be {words}, on both axes"
        if conv.weight.dtype != torch.float32:
            return f"weight is {conv.weight.dtype}; it must be torch.float32"
        if isinstance(conv.padding, str):
            return None
        if conv.padding[0] != conv.padding[1]:
            return f"padding is {conv.padding}; it must be the same on both axes"
        return None

    @classmethod
    def from_conv(
        cls, conv: nn.Conv2d, *, tile: int = 4, relu: bool = False, as_stored: bool = False
    ) -> Self:
        """The layer that computes what ``conv`` does, with a ReLU behind it if asked for.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, and for weights that are not finite.
        """
        require_layer(cls, nn.Conv2d, conv=conv)
        require_replaceable(cls, conv, cls.why_not(conv, tile))
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            tile=tile,
            kernel_size=conv.kernel_size[0],
            stride=conv.stride[0],
            padding=padding_of(conv)[0],
            bias=conv.bias is not None,
            relu=relu,
            as_stored=as_stored,
        )
        layer.hold(
            weight=packing.pack_winograd(conv.weight, tile, conv.stride[0], as_stored=as_stored),
            bias=own_bias(conv),
        )
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, channels, stride = self._buffers, self.options["out_channels"], self.options["stride"]
        output: Tensor = _winograd_conv2d(
            input, held["weight"], held["bias"], residual, channels, self.padding, stride, self.relu
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return winograd_conv2d(
            input,
            self.weight,
            self.bias,
            residual,
            out_channels=self.options["out_channels"],
            padding=self.padding,
            stride=self.options["stride"],
            relu=self.relu,
        )


class PackedLinear(PackedLayer):
    """A linear layer by :func:`leanmark_kernels.packed_linear`, whose numerics it shares.

    ``dtype`` is that of the stored weights: float32, float16, bfloat16, or int8 with one scale per output.
    Made from a trained layer with :meth:`from_linear`; made directly it holds zeros, to load a state into.
    """

    layout = "packed_linear"
    shown = ("relu",)
    scale: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: torch.dtype = torch.float32,
        bias: bool = True,
        relu: bool = False,
    ) -> None:
        super().__init__(
            bits=torch.empty(0, dtype=dtype).element_size() * 8,
            in_features=in_features,
            out_features=out_features,
        )
        self.relu = relu
        self.hold(
            weight=packing.pack_linear(torch.zeros(out_features, in_features, dtype=dtype)),
            scale=torch.ones(out_features) if dtype == torch.int8 else None,
            bias=torch.zeros(out_features) if bias else None,
        )

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, *, dtype: torch.dtype = torch.float32, relu: bool = False
    ) -> Self:
        """The layer that computes what ``linear`` does, its weights rounded to ``dtype``.

        Raises ``TypeError`` for another dtype, ``ValueError`` for weights that are not finite.
        """
        require_layer(cls, nn.Linear, linear=linear)
        layer = cls(
            linear.in_features, linear.out_features, dtype=dtype, bias=linear.bias is not None, relu=relu
        )
        weight, scale = linear.weight.detach(), None
        if dtype == torch.int8:
            weight, scale = integer_packing.quantize_channels(weight)
        layer.hold(
            weight=packing.pack_linear(weight.to(dtype)),
            scale=scale,
            bias=own_bias(linear),
        )
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, options = self._buffers, self.options
        if options["bits"] == 16 and input.shape[-1] != options["in_features"]:  # bfloat16 comes in pairs
            self._require_input(input)
        output: Tensor = _packed_linear(
            input, held["weight"], held["scale"], held["bias"], options["out_features"], self.relu
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return packed_linear(
            input,
            self.weight,
            self.scale,
            self.bias,
            out_features=self.options["out_features"],
            relu=self.relu,
        )
