"""How a packed layer is made from one of torch's, and called."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad

from leanmark_kernels import _native
from leanmark_kernels.ops.arguments import require_float32
from leanmark_kernels.packed_state import PackedModule
from leanmark_kernels.weights import require_dtype, require_finite

_NATIVE = _native.available()  # the reference leaves the checks to whoever calls it


class PackedLayer(PackedModule):
    """A layer by an operator that takes float32 and gives float32.

    It reads ``_buffers`` in ``_run``: each attribute of a module takes 0.3 µs, all of them together as long
    as the operator of a small layer.
    """

    takes_residual: ClassVar[bool] = False
    takes_any_layout: bool = False
    """Whether it reads images that are not in channels_last no slower than they could be changed."""

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """``residual``, of the shape of the output, is for layers that add one.

        Raises the errors of the operator.
        """
        if not isinstance(input, Tensor):
            return self._leaf(input, residual)  # type: ignore[unreachable]
        if residual is not None and not self.takes_residual:
            raise TypeError(f"{self.layout}: a residual is given; it must be None, since none is added")
        try:
            output = self._run(input, residual) if _NATIVE else None
        except (RuntimeError, IndexError):
            output = None
        if output is None or output.requires_grad or forward_ad._current_level >= 0:  # see forward_mode
            self._require_input(input)
            return self._checked(input, residual)
        return output

    def _run(self, input: Tensor, residual: Tensor | None) -> Tensor:
        """By the operator itself."""
        raise NotImplementedError

    def _checked(self, input: Tensor, residual: Tensor | None) -> Tensor:
        """Slower by more than a small layer takes; says what is wrong, and has a gradient or refuses one."""
        raise NotImplementedError

    def _require_input(self, input: Tensor) -> None:
        """Called before the operator where a layout is filled up, so that it would take a few inputs more."""
        require_float32(self.layout, input=input)
        shape, width = list(input.shape), self.options.get("in_features")
        if width is not None:
            fits, legal = shape[-1:] == [width], f"[*, {width}]"
        else:
            width = self.options.get("in_channels", self.options.get("channels"))
            fits, legal = len(shape) == 4 and shape[1] == width, f"[N, {width}, H, W]"
        if not fits:
            raise ValueError(f"{self.layout}: input is {shape}; it must be {legal}")

    def _leaf(self, input: object, residual: object) -> Any:
        """A node of a graph that torch.fx traces, as torch's own layers are one."""
        if not isinstance(input, fx.Proxy):
            raise TypeError(f"{self.layout}: input is a {type(input).__name__}; it must be a torch.Tensor")
        tracer = cast(fx.Tracer, input.tracer)
        if tracer.root is self:
            raise TypeError(f"{self.layout}: a packed layer cannot be traced alone; trace what it is part of")
        arguments = (input,) if residual is None else (input, residual)
        return tracer.create_proxy("call_module", tracer.path_of_module(self), arguments, {})


def own_bias(layer: nn.Conv2d | nn.Linear) -> Tensor | None:
    """A copy of the bias of ``layer``, which a packed one can hold.

    Raises ``TypeError`` where it is not float32, ``ValueError`` where it is not finite.
    """
    if layer.bias is None:
        return None
    require_dtype(str(layer), torch.float32, bias=layer.bias)
    require_finite(str(layer), bias=layer.bias)
    return layer.bias.detach().clone()


def pair(values: tuple[int, ...]) -> tuple[int, int]:
    """What torch declares as a tuple of any length, for height and width."""
    height, width = values
    return height, width


def reaches(conv: nn.Conv2d) -> tuple[int, int]:
    """How far the first and the last weight of a kernel are apart, along each axis."""
    return pair(tuple(d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)))


def padding_of(conv: nn.Conv2d) -> tuple[int, int]:
    """In numbers; "same" is half of :func:`reaches` on either side, which must be even."""
    if conv.padding == "valid":
        return 0, 0
    height, width = reaches(conv)
    return (height // 2, width // 2) if isinstance(conv.padding, str) else pair(conv.padding)


def require_layer(cls: type[PackedLayer], kind: type[nn.Module], **layers: object) -> None:
    for name, layer in layers.items():
        if not isinstance(layer, kind):
            raise TypeError(
                f"{cls.__name__}: {name} is a {type(layer).__name__}; it must be a torch.nn.{kind.__name__}"
            )


def require_replaceable(cls: type[nn.Module], layer: nn.Module, reason: str | None) -> None:
    """Raises ``ValueError`` where there is a ``reason`` why ``cls`` cannot take the place of ``layer``."""
    if reason is not None:
        raise ValueError(f"{cls.__name__} cannot replace {layer}: {reason}. Keep torch's layer.")
