"""What the two convolutions share: arguments, checks, problems, and the shape of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from leanmark_kernels.triton.arguments import (
    require_activation,
    require_device,
    require_floating,
    require_shape,
    require_vector,
    require_whole,
)
from leanmark_kernels.triton.kernel import dtype_name


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves over the pixels; the same on both axes."""

    stride: int
    padding: int
    dilation: int

    def output_size(self, size: int, kernel: int) -> int:
        return (size + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1

    def output_shape(self, input: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
        """Of an ``input`` [batch, C, H, W] under a ``weight`` [filters, _, R, S]."""
        batch, _, height, width = input.shape
        filters, _, r, s = weight.shape
        return batch, filters, self.output_size(height, r), self.output_size(width, s)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """``output`` [pixels, O] from ``input`` [N, H, W, C] and ``weight``; all are contiguous.

    ``weight`` is [O, R, S, C], or [R, S, C] where every channel has a filter of its own.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    residual: Tensor | None
    output: Tensor
    window: Window
    activation: str

    @classmethod
    def of(
        cls,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        output: Tensor,
        window: Window,
        activation: str,
    ) -> Self:
        """From the arguments of an operator; ``weight`` is as above, ``output`` in channels_last."""
        rows = output.permute(0, 2, 3, 1).view(-1, output.shape[1])
        bias = None if bias is None else bias.contiguous()
        added = None if residual is None else nhwc(residual).view_as(rows)
        return cls(nhwc(input), weight, bias, added, rows, window, activation)

    def key(self, kernel: str) -> str:
        extra = "" if self.residual is None else " residual"
        return (
            f"{kernel} {dtype_name(self.input)} {list(self.input.shape)} {list(self.weight.shape)} "
            f"{self.window} {self.activation}{extra}"
        )


def check(
    operator: str,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    window: Window,
    activation: str,
) -> None:
    """Raise what is wrong with the arguments of a convolution, the channels of ``weight`` aside."""
    require_floating(operator, input, weight=weight, bias=bias, residual=residual)
    require_activation(operator, activation)
    for name, tensor in (("input", input), ("weight", weight)):
        if tensor.dim() != 4:
            raise ValueError(f"{operator}: {name} is {list(tensor.shape)}; it must have 4 dimensions")
    require_whole(operator, 1, stride=window.stride, dilation=window.dilation)
    require_whole(operator, 0, padding=window.padding)
    shape = window.output_shape(input, weight)
    if min(shape[2:]) < 1:
        raise ValueError(
            f"{operator}: input is {list(input.shape)}; with padding {window.padding} it is smaller than the "
            f"kernel of {list(weight.shape[2:])} with dilation {window.dilation}"
        )
    require_vector(operator, weight.shape[0], bias=bias)
    require_shape(operator, "residual", residual, *shape)
    require_device(operator, input, weight=weight, bias=bias, residual=residual)


def empty_output(input: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The output of a convolution, channels_last and not yet computed."""
    return torch.empty(
        window.output_shape(input, weight),
        dtype=input.dtype,
        device=input.device,
        memory_format=torch.channels_last,
    )


def shape(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    activation: str,
) -> Tensor:
    """:func:`empty_output` by the arguments of an operator."""
    return empty_output(input, weight, Window(stride, padding, dilation))


def nhwc(tensor: Tensor) -> Tensor:
    """``tensor`` [N, C, H, W] as a contiguous [N, H, W, C]; copied unless it is channels_last."""
    return tensor.permute(0, 2, 3, 1).contiguous()
