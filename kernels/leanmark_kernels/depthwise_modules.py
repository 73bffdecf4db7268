"""Layers with depthwise convolutions, packed and not trained; saved and loaded through ``state_dict``."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from leanmark_kernels import depthwise_packing, packing
from leanmark_kernels.activations import Activation, activation_number
from leanmark_kernels.ops.arguments import require_whole
from leanmark_kernels.ops.depthwise_conv2d import depthwise_conv2d
from leanmark_kernels.ops.inverted_residual import InvertedResidualWeights, inverted_residual
from leanmark_kernels.packed_layer import (
    PackedLayer,
    own_bias,
    padding_of,
    require_layer,
    require_replaceable,
)

_depthwise_conv2d = torch.ops.leanmark.depthwise_conv2d.default
_inverted_residual = torch.ops.leanmark.inverted_residual.default


class DepthwiseConv2d(PackedLayer):
    """A depthwise 3x3 convolution by :func:`leanmark_kernels.depthwise_conv2d`, whose numerics it shares.

    Made from a trained layer with :meth:`from_conv`; made directly it holds zeros, to load a state into.
    """

    layout = "depthwise_conv2d"
    shown = ("stride", "padding", "activation")

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        padding: int = 1,
        bias: bool = True,
        activation: Activation = "none",
    ) -> None:
        require_whole("DepthwiseConv2d", 0, padding=padding)
        super().__init__(channels=channels)
        self.activation_number = activation_number("DepthwiseConv2d", activation)
        self.stride, self.padding = stride, padding
        self.activation: Activation = activation
        self.hold(weight=torch.zeros(9, channels), bias=torch.zeros(channels) if bias else None)

    @staticmethod
    def why_not(conv: nn.Conv2d) -> str | None:
        """Why ``conv`` has to stay with torch, or ``None`` where this layer can replace it."""
        if conv.groups != conv.in_channels or conv.in_channels != conv.out_channels:
            return f"groups is {conv.groups}; it must be in_channels and out_channels, one filter per channel"
        legal: dict[str, tuple[object, ...]] = {
            "kernel_size": ((3, 3),),
            "stride": ((1, 1), (2, 2)),
            "dilation": ((1, 1),),
            "padding_mode": ("zeros",),
        }
        for name, values in legal.items():
            if getattr(conv, name) not in values:
                return f"{name} is {getattr(conv, name)}; it must be {' or '.join(map(str, values))}"
        if conv.weight.dtype != torch.float32:
            return f"weight is {conv.weight.dtype}; it must be torch.float32"
        if not isinstance(conv.padding, str) and conv.padding[0] != conv.padding[1]:
            return f"padding is {conv.padding}; it must be the same on both axes"
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
            stride=conv.stride[0],
            padding=padding_of(conv)[0],
            bias=conv.bias is not None,
            activation=activation,
        )
        layer.hold(weight=depthwise_packing.pack_depthwise(conv.weight), bias=own_bias(conv))
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held = self._buffers
        output: Tensor = _depthwise_conv2d(
            input, held["weight"], held["bias"], self.stride, self.padding, self.activation_number
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        return depthwise_conv2d(
            input,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            activation=self.activation,
        )


class InvertedResidual(PackedLayer):
    """A block of MobileNetV2 by :func:`leanmark_kernels.inverted_residual`, whose numerics it shares.

    Made from three trained layers, their batch norms folded into them, with :meth:`from_convs`; made directly
    it holds zeros, to load a state into. The first block of the network expands nothing: ``hidden`` is
    ``None`` there, and so is the first of the layers.
    """

    layout = "inverted_residual"
    shown = ("stride", "residual")
    expand: Tensor | None
    expand_bias: Tensor | None
    depthwise: Tensor
    depthwise_bias: Tensor | None
    project: Tensor
    project_bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        hidden: int | None,
        out_channels: int,
        *,
        stride: int = 1,
        residual: bool = False,
        bias: bool = True,
    ) -> None:
        expand = hidden is not None
        hidden = in_channels if hidden is None else hidden
        super().__init__(in_channels=in_channels, hidden=hidden, out_channels=out_channels)
        self.stride, self.residual = stride, residual
        self.hold(
            expand=packing.pack_linear(torch.zeros(hidden, in_channels)) if expand else None,
            depthwise=torch.zeros(9, hidden),
            project=packing.pack_linear(torch.zeros(out_channels, hidden)),
            expand_bias=torch.zeros(hidden) if bias and expand else None,
            depthwise_bias=torch.zeros(hidden) if bias else None,
            project_bias=torch.zeros(out_channels) if bias else None,
        )

    @staticmethod
    def why_not(
        expand: nn.Conv2d | None, depthwise: nn.Conv2d, project: nn.Conv2d, residual: bool
    ) -> str | None:
        """Why these layers have to stay with torch, or ``None`` where this one can replace them."""
        for name, conv in (("expand", expand), ("project", project)):
            if conv is None:
                continue
            steps = (conv.kernel_size, conv.stride, conv.padding)
            if steps not in (((1, 1), (1, 1), (0, 0)), ((1, 1), (1, 1), "valid")) or conv.groups != 1:
                return f"{name} is {conv}; it must be a 1x1 convolution of stride 1, padding 0 and one group"
            if conv.weight.dtype != torch.float32:
                return f"the weight of {name} is {conv.weight.dtype}; it must be torch.float32"
        reason = DepthwiseConv2d.why_not(depthwise)
        if reason is not None:
            return f"depthwise: {reason}"
        if depthwise.padding not in ((1, 1), "same"):
            return f"the padding of depthwise is {depthwise.padding}; it must be (1, 1)"
        first = depthwise if expand is None else expand
        if not first.out_channels == depthwise.in_channels == project.in_channels:
            return "expand, depthwise and project must have the same hidden channels"
        if residual and (depthwise.stride != (1, 1) or first.in_channels != project.out_channels):
            return "residual is True; it needs stride 1 and as many outputs as inputs"
        return None

    @classmethod
    def from_convs(
        cls, expand: nn.Conv2d | None, depthwise: nn.Conv2d, project: nn.Conv2d, *, residual: bool = False
    ) -> Self:
        """``project(relu6(depthwise(relu6(expand(x)))))``, plus x if ``residual``.

        Raises ``ValueError`` with :meth:`why_not` where it cannot, and for weights that are not finite.
        """
        layers = {"depthwise": depthwise, "project": project} | ({"expand": expand} if expand else {})
        require_layer(cls, nn.Conv2d, **layers)
        reason = cls.why_not(expand, depthwise, project, residual)
        if reason is not None:
            raise ValueError(f"{cls.__name__} cannot replace these layers: {reason}. Keep torch's layers.")
        layer = cls(
            expand.in_channels if expand else depthwise.in_channels,
            expand.out_channels if expand else None,
            project.out_channels,
            stride=depthwise.stride[0],
            residual=residual,
        )
        layer.hold(
            expand=packing.pack_linear(expand.weight.flatten(1)) if expand else None,
            depthwise=depthwise_packing.pack_depthwise(depthwise.weight),
            project=packing.pack_linear(project.weight.flatten(1)),
            expand_bias=own_bias(expand) if expand else None,
            depthwise_bias=own_bias(depthwise),
            project_bias=own_bias(project),
        )
        return layer

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        held = self._buffers
        output: Tensor = _inverted_residual(
            input,
            held["expand"],
            held["expand_bias"],
            held["depthwise"],
            held["depthwise_bias"],
            held["project"],
            held["project_bias"],
            self.options["out_channels"],
            self.stride,
            self.residual,
        )
        return output

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        weights = InvertedResidualWeights(
            self.expand,
            self.expand_bias,
            self.depthwise,
            self.depthwise_bias,
            self.project,
            self.project_bias,
        )
        return inverted_residual(
            input,
            weights,
            out_channels=self.options["out_channels"],
            stride=self.stride,
            residual=self.residual,
        )
