"""``relu(input @ weight.T + bias)``, nothing packed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leanmark_kernels import reference
from leanmark_kernels.ops.arguments import require_device, require_float32
from leanmark_kernels.ops.registration import library, register


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``relu(input @ weight.T + bias)`` in one operator, differentiable.

    ``input`` is float32 [*, K] of any strides, ``weight`` float32 [N, K], ``bias`` float32 [N] or ``None``;
    returns float32 [*, N]. NaN passes through. On CPU the native kernel sums in another order than
    :func:`leanmark_kernels.reference.linear_relu`, so the two agree to rounding; other devices and builds
    without native code run the reference.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes or devices that do not fit.
    """
    require_float32("linear_relu", input=input, weight=weight, bias=bias)
    _check_shape(input, weight, bias)
    require_device("linear_relu", input, weight=weight, bias=bias)
    output: Tensor = torch.ops.leanmark.linear_relu.default(input, weight, bias)
    return output


def _check_shape(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2:
        raise ValueError(f"linear_relu: weight is {list(weight.shape)}; it must be [N, K]")
    columns, depth = weight.shape
    if input.dim() < 1 or input.shape[-1] != depth:
        raise ValueError(
            f"linear_relu: input is {list(input.shape)}; it must be [*, {depth}], "
            f"since weight is [{columns}, {depth}]"
        )
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != columns):
        raise ValueError(
            f"linear_relu: bias is {list(bias.shape)}; it must be [{columns}] or None, "
            f"since weight is [{columns}, {depth}]"
        )


def _shape(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    input, weight, _ = inputs
    ctx.save_for_backward(input, weight, output)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    input, weight, output = ctx.saved_tensors
    needs_input, needs_weight, needs_bias = ctx.needs_input_grad
    passed = grad.masked_fill(output <= 0, 0.0)
    rows = passed.reshape(-1, weight.shape[0])
    return (
        passed @ weight if needs_input else None,
        rows.t() @ input.reshape(-1, weight.shape[1]) if needs_weight else None,
        rows.sum(0) if needs_bias else None,
    )


register("linear_relu(Tensor input, Tensor weight, Tensor? bias) -> Tensor", reference.linear_relu, _shape)
torch.library.register_autograd("leanmark::linear_relu", _gradient, setup_context=_keep, lib=library)
