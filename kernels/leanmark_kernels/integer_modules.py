"""Layers that compute in integers, for inference; saved and loaded through ``state_dict``."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from leanmark_kernels import integer_packing as packing
from leanmark_kernels.integer_packing import PackedInt8
from leanmark_kernels.modules import WinogradConv2d
from leanmark_kernels.ops import int8_conv2d, int8_dynamic_linear, int8_winograd_conv2d, w4a8_linear
from leanmark_kernels.ops.arguments import require_pairs, require_whole
from leanmark_kernels.ops.int8_conv2d import Geometry
from leanmark_kernels.packed_layer import (
    PackedLayer,
    own_bias,
    padding_of,
    pair,
    reaches,
    require_layer,
    require_replaceable,
)

_w4a8_linear = torch.ops.leanmark.w4a8_linear.default
_int8_dynamic_linear = torch.ops.leanmark.int8_dynamic_linear.default
_int8_winograd_conv2d = torch.ops.leanmark.int8_winograd_conv2d.default
_int8_conv2d = torch.ops.leanmark.int8_conv2d.default


class W4A8Linear(PackedLayer):
    """A linear layer by :func:`leanmark_kernels.w4a8_linear`, whose numerics it shares.

    ``group`` weights of a row share a scale, and a zero point if ``zero_points``. Made from a trained layer
    with :meth:`from_linear`; made directly it holds zeros, to load a state into.
    """

    layout = "w4a8_linear"
    shown = ("relu",)
    scale: Tensor
    zero: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        group: int = 32,
        zero_points: bool = False,
        bias: bool = True,
        relu: bool = False,
    ) -> None:
        super().__init__(
            group=group, zero_points=int(zero_points), in_features=in_features, out_features=out_features
        )
        self.relu = relu
        self._take(torch.zeros(out_features, in_features), torch.zeros(out_features) if bias else None)

    @staticmethod
    def why_not(linear: nn.Linear, *, group: int = 32) -> str | None:
        """Why ``linear`` has to stay with torch, or ``None`` where this layer can replace it."""
        if linear.weight.dtype != torch.float32:
            return f"weight is {linear.weight.dtype}; it must be torch.float32"
        if group < 1 or group % packing.GROUP_STEP:
            return f"group is {group}; it must be a multiple of {packing.GROUP_STEP}"
        if linear.in_features % group:
            return f"in_features is {linear.in_features}; it must be a multiple of the group, {group}"
        return None

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, *, group: int = 32, zero_points: bool = False, relu: bool = False
    ) -> Self:
        """The layer that computes what ``linear`` does, with a ReLU behind it if asked for.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, and for weights that are not finite.
        """
        require_layer(cls, nn.Linear, linear=linear)
        require_replaceable(cls, linear, cls.why_not(linear, group=group))
        layer = cls(
            linear.in_features,
            linear.out_features,
            group=group,
            zero_points=zero_points,
            bias=linear.bias is not None,
            relu=relu,
        )
        layer._take(linear.weight, own_bias(linear))
        return layer

    def _take(self, weight: Tensor, bias: Tensor | None) -> None:
        integers = packing.quantize_int4(
            weight, group=self.options["group"], zero_points=bool(self.options["zero_points"])
        )
        packed = packing.pack_int4(integers)
        self.hold(weight=packed.weight, scale=packed.scale, zero=packed.zero, bias=bias)

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, columns = self._buffers, self.options["out_features"]
        output: Tensor = _w4a8_linear(
            input, held["weight"], held["scale"], held["zero"], held["bias"], columns, self.relu
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return w4a8_linear(
            input,
            self.weight,
            self.scale,
            self.zero,
            self.bias,
            out_features=self.options["out_features"],
            relu=self.relu,
        )


class Int8Linear(PackedLayer):
    """A linear layer by :func:`leanmark_kernels.int8_dynamic_linear`: exact products of rounded numbers.

    Weights are rounded per output, activations per row and call, both symmetrically to ``bits`` 8, or 7,
    which is faster on CPUs without VNNI. Made from a trained layer with :meth:`from_linear`; made directly it
    holds zeros, to load a state into.
    """

    layout = "int8_linear"
    shown = ("relu",)
    scale: Tensor

    def __init__(
        self, in_features: int, out_features: int, *, bits: int = 8, bias: bool = True, relu: bool = False
    ) -> None:
        packing.require_bits("Int8Linear", bits)
        super().__init__(bits=bits, in_features=in_features, out_features=out_features)
        self.relu = relu
        self._take(torch.zeros(out_features, in_features), torch.zeros(out_features) if bias else None)

    @staticmethod
    def why_not(linear: nn.Linear) -> str | None:
        """Why ``linear`` has to stay with torch, or ``None`` where this layer can replace it."""
        if linear.weight.dtype != torch.float32:
            return f"weight is {linear.weight.dtype}; it must be torch.float32"
        if linear.in_features > packing.MOST_DEPTH:
            return f"in_features is {linear.in_features}; it must be at most {packing.MOST_DEPTH}"
        return None

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, bits: int = 8, relu: bool = False) -> Self:
        """The layer that computes what ``linear`` does, with a ReLU behind it if asked for.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, for other ``bits`` and for weights that
        are not finite.
        """
        require_layer(cls, nn.Linear, linear=linear)
        require_replaceable(cls, linear, cls.why_not(linear))
        bias = linear.bias is not None
        layer = cls(linear.in_features, linear.out_features, bits=bits, bias=bias, relu=relu)
        layer._take(linear.weight, own_bias(linear))
        return layer

    def _take(self, weight: Tensor, bias: Tensor | None) -> None:
        integers, scale = packing.quantize_channels(weight, self.options["bits"])
        self.hold(weight=packing.pack_int8_linear(integers), scale=scale, bias=bias)

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, options = self._buffers, self.options
        if input.shape[-1] != options["in_features"]:
            self._require_input(input)
        output: Tensor = _int8_dynamic_linear(
            input,
            held["weight"],
            held["scale"],
            held["bias"],
            options["bits"],
            options["out_features"],
            self.relu,
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return int8_dynamic_linear(
            input,
            PackedInt8(self.weight, self.scale),
            self.bias,
            out_features=self.options["out_features"],
            bits=self.options["bits"],
            relu=self.relu,
        )


class Int8WinogradConv2d(PackedLayer):
    """A 3x3 convolution of stride 1 by :func:`leanmark_kernels.int8_winograd_conv2d`: exact products.

    Weights are rounded per output channel, activations per image and call, both symmetrically to 8 bits. Made
    from a trained layer with :meth:`from_conv`; made directly it holds zeros, to load a state into.
    """

    layout = "int8_winograd_conv2d"
    shown = ("padding", "relu")
    takes_residual = True
    scale: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, *, padding: int = 1, bias: bool = True, relu: bool = False
    ) -> None:
        require_whole("Int8WinogradConv2d", 0, padding=padding)
        super().__init__(in_channels=in_channels, out_channels=out_channels)
        self.padding, self.relu = padding, relu
        self._take(torch.zeros(out_channels, in_channels, 3, 3), torch.zeros(out_channels) if bias else None)

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to take another layer, or ``None`` where this one can replace it."""
        if conv.in_channels > packing.MOST_CHANNELS:
            return f"in_channels is {conv.in_channels}; it must be at most {packing.MOST_CHANNELS}"
        return WinogradConv2d.why_not(conv, tile=4)  # as there: 3x3 of stride 1

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, relu: bool = False) -> Self:
        """The layer that computes what ``conv`` does, with a ReLU behind it if asked for.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, and for weights that are not finite.
        """
        require_layer(cls, nn.Conv2d, conv=conv)
        reason = cls.why_not(conv)
        if reason is not None:
            raise ValueError(f"Int8WinogradConv2d cannot replace {conv}: {reason}. Use Int8Conv2d.")
        padding, bias = padding_of(conv)[0], conv.bias is not None
        layer = cls(conv.in_channels, conv.out_channels, padding=padding, bias=bias, relu=relu)
        layer._take(conv.weight, own_bias(conv))
        return layer

    def _take(self, weight: Tensor, bias: Tensor | None) -> None:
        integers, scale = packing.quantize_channels(weight)
        self.hold(weight=packing.pack_int8_winograd(integers), scale=scale, bias=bias)

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held, options = self._buffers, self.options
        if input.shape[1] != options["in_channels"]:
            self._require_input(input)
        output: Tensor = _int8_winograd_conv2d(
            input,
            held["weight"],
            held["scale"],
            None,
            0,
            held["bias"],
            residual,
            options["out_channels"],
            self.padding,
            self.relu,
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return int8_winograd_conv2d(
            input,
            PackedInt8(self.weight, self.scale),
            self.bias,
            residual,
            out_channels=self.options["out_channels"],
            padding=self.padding,
            relu=self.relu,
        )


class Int8Conv2d(PackedLayer):
    """Any convolution by :func:`leanmark_kernels.int8_conv2d`: exact products of rounded numbers.

    Weights are rounded per output channel, activations per image and call, both symmetrically to 8 bits. It
    has the shape of ``conv``; made with :meth:`from_conv` also its weights, made directly zeros, to load a
    state into.
    """

    layout = "int8_conv2d"
    scale: Tensor

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        require_layer(type(self), nn.Conv2d, conv=conv)
        require_replaceable(type(self), conv, self.why_not(conv))
        require_pairs("Int8Conv2d", 0, padding=padding_of(conv))
        height, width = pair(conv.kernel_size)
        super().__init__(
            in_channels=conv.in_channels,
            out_channels=conv.out_channels,
            groups=conv.groups,
            kernel_height=height,
            kernel_width=width,
        )
        self.relu = relu
        self.geometry = Geometry((height, width), pair(conv.stride), padding_of(conv), pair(conv.dilation))
        self.window = self.geometry.window()
        bias = None if conv.bias is None else torch.zeros(conv.out_channels)
        self._take(torch.zeros(conv.weight.shape), bias)

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can replace it."""
        if conv.weight.dtype != torch.float32:
            return f"weight is {conv.weight.dtype}; it must be torch.float32"
        if conv.padding_mode != "zeros":
            return f"padding_mode is {conv.padding_mode}; it must be zeros"
        if conv.padding == "same" and any(reach % 2 for reach in reaches(conv)):
            return f"padding is same with kernel_size {conv.kernel_size}; it must be the same on both sides"
        depth = conv.weight[0].numel()
        if depth > packing.MOST_DEPTH:
            return f"an output has {depth} weights; they must be at most {packing.MOST_DEPTH}"
        return None

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, *, relu: bool = False) -> Self:
        """The layer that computes what ``conv`` does, with a ReLU behind it if asked for.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, and for weights that are not finite.
        """
        layer = cls(conv, relu=relu)
        layer._take(conv.weight, own_bias(conv))
        return layer

    def _take(self, weight: Tensor, bias: Tensor | None) -> None:
        integers, scale = packing.quantize_channels(weight)
        groups = integers.permute(0, 2, 3, 1).flatten(1).chunk(self.options["groups"])
        packed = torch.stack([packing.pack_int8_linear(group) for group in groups])
        self.hold(weight=packed, scale=scale, bias=bias)

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held = self._buffers
        if input.shape[1] != self.options["in_channels"]:
            self._require_input(input)
        output: Tensor = _int8_conv2d(
            input, held["weight"], held["scale"], None, 0, held["bias"], self.window, self.relu
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return int8_conv2d(
            input,
            PackedInt8(self.weight, self.scale),
            self.bias,
            geometry=self.geometry,
            relu=self.relu,
        )

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, stride={self.geometry.stride}, padding={self.geometry.padding}, "
            f"dilation={self.geometry.dilation}, relu={self.relu}"
        )
