"""The operators as Python functions, and their registration with torch.

Each operator ``leanmark::name`` has a schema, a reference for every device, a native CPU kernel where it was
built, a shape function for tracing, and a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leanmark_kernels import _native, reference

_library = torch.library.Library("leanmark", "FRAGMENT")
if not _native.available():
    _library.define("linear_relu(Tensor input, Tensor weight, Tensor? bias) -> Tensor")


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``relu(input @ weight.T + bias)`` in one operator, differentiable.

    ``input`` is float32 [*, K] of any strides, ``weight`` float32 [N, K], ``bias`` float32 [N] or ``None``;
    returns float32 [*, N]. NaN passes through. On CPU the native kernel sums in another order than
    :func:`leanmark_kernels.reference.linear_relu`, so the two agree to rounding; other devices and builds
    without native code run the reference.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes or devices that do not fit.
    """
    _check_dtype(input=input, weight=weight, bias=bias)
    _check_shape(input, weight, bias)
    _check_device(input, weight=weight, bias=bias)
    output: Tensor = torch.ops.leanmark.linear_relu(input, weight, bias)
    return output


def _check_dtype(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != torch.float32:
            raise TypeError(f"linear_relu: {name} is {tensor.dtype}; it must be torch.float32")


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


def _check_device(input: Tensor, **others: Tensor | None) -> None:
    for name, tensor in others.items():
        if tensor is not None and tensor.device != input.device:
            raise ValueError(
                f"linear_relu: {name} is on {tensor.device}; it must be on {input.device}, where input is"
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


def _without_native(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if input.device.type == "cpu":
        _native.warn_slow_reference()
    return reference.linear_relu(input, weight, bias)


# The native CPU kernel, where it is loaded, comes before this one.
_library.impl("linear_relu", _without_native, "CompositeExplicitAutograd")
torch.library.register_fake("leanmark::linear_relu", _shape, lib=_library)
torch.library.register_autograd("leanmark::linear_relu", _gradient, setup_context=_keep, lib=_library)
