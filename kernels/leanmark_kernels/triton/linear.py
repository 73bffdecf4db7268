"""Dense linear layers with a fused epilogue, in floating and in 8-bit integer arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.triton import gemm, reference, tuning
from leanmark_kernels.triton.arguments import (
    require_activation,
    require_device,
    require_dtype,
    require_floating,
    require_shape,
    require_vector,
)
from leanmark_kernels.triton.kernel import rows_of
from leanmark_kernels.triton.registration import register

LONGEST_INT8 = 2**31 // 128**2 - 1


def fused_linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ weight.T + bias + residual)`` in one kernel; for inference.

    ``input`` is [*, K], ``weight`` [N, K], ``bias`` [N], ``residual`` [*, N], all float16, bfloat16 or
    float32 and of one dtype, which the result [*, N] has; ``activation`` is ``none``, ``relu``, ``relu6``,
    ``gelu`` (the exact one) or ``silu``. Products and epilogue are float32, rounded once at the end:
    the error is at most half a unit of the last place of the dtype, plus about sqrt(K) 6e-8 |input| |weight|.

    Raises ``TypeError`` for dtypes, ``ValueError`` for shapes, devices or an activation that do not fit. The
    backward pass raises ``NotImplementedError``.
    """
    require_floating("fused_linear", input, weight=weight, bias=bias, residual=residual)
    require_activation("fused_linear", activation)
    _check_weight("fused_linear", input, weight)
    require_vector("fused_linear", weight.shape[0], bias=bias)
    require_shape("fused_linear", "residual", residual, *input.shape[:-1], weight.shape[0])
    require_device("fused_linear", input, weight=weight, bias=bias, residual=residual)
    output: Tensor = torch.ops.leanmark_kernels.fused_linear.default(
        input, weight, bias, residual, activation
    )
    return for_inference("fused_linear", output)


def int8_linear(
    input: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    activation: str = "none",
    dtype: torch.dtype = torch.float16,
) -> Tensor:
    """``activation((input @ weight.T) * input_scale * weight_scale + bias + residual)``, in int8.

    ``input`` is int8 [*, K] with one float32 scale per row [*], ``weight`` int8 [N, K] with one float32 scale
    per output [N], as :func:`leanmark_kernels.integer_packing.quantize_channels` makes them; ``bias`` is [N]
    and ``residual`` [*, N] of ``dtype``, which the result [*, N] has. Sums are exact, scaling is float32.

    Raises ``TypeError`` for dtypes, ``ValueError`` for shapes, devices or an activation that do not fit. The
    backward pass raises ``NotImplementedError``.
    """
    require_dtype("int8_linear", torch.int8, input=input, weight=weight)
    require_dtype("int8_linear", torch.float32, input_scale=input_scale, weight_scale=weight_scale)
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise TypeError(f"int8_linear: dtype is {dtype}; it must be a floating dtype of 16 or 32 bits")
    require_dtype("int8_linear", dtype, bias=bias, residual=residual)
    require_activation("int8_linear", activation)
    _check_weight("int8_linear", input, weight)
    if weight.shape[1] > LONGEST_INT8:
        raise ValueError(f"int8_linear: K is {weight.shape[1]}; past {LONGEST_INT8} sums overflow 32 bits")
    require_shape("int8_linear", "input_scale", input_scale, *input.shape[:-1])
    require_shape("int8_linear", "residual", residual, *input.shape[:-1], weight.shape[0])
    require_vector("int8_linear", weight.shape[0], weight_scale=weight_scale, bias=bias)
    scales = {"input_scale": input_scale, "weight_scale": weight_scale}
    require_device("int8_linear", input, weight=weight, **scales, bias=bias, residual=residual)
    output: Tensor = torch.ops.leanmark_kernels.int8_linear.default(
        input, weight, input_scale, weight_scale, bias, residual, activation, dtype
    )
    return for_inference("int8_linear", output)


def _check_weight(operator: str, input: Tensor, weight: Tensor) -> None:
    if weight.dim() != 2:
        raise ValueError(f"{operator}: weight is {list(weight.shape)}; it must be [N, K]")
    if input.dim() < 1 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{operator}: input is {list(input.shape)}; it must be [*, {weight.shape[1]}], "
            f"since weight is {list(weight.shape)}"
        )


def _fused(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    output = _fused_shape(input, weight, bias, residual, activation)
    tuning.solve(
        gemm.kernels(input.dtype),
        gemm.Product(
            rows_of(input),
            weight.contiguous(),
            rows_of(output),
            bias=None if bias is None else bias.contiguous(),
            residual=None if residual is None else rows_of(residual),
            activation=activation,
        ),
    )
    return output


def _fused_shape(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]))


def _int8(
    input: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    output = _int8_shape(input, weight, input_scale, weight_scale, bias, residual, activation, dtype)
    tuning.solve(
        gemm.kernels(torch.int8),
        gemm.Product(
            rows_of(input),
            weight.contiguous(),
            rows_of(output),
            bias=None if bias is None else bias.contiguous(),
            residual=None if residual is None else rows_of(residual),
            row_scale=input_scale.reshape(-1).contiguous(),
            column_scale=weight_scale.contiguous(),
            activation=activation,
        ),
    )
    return output


def _int8_shape(
    input: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], weight.shape[0]), dtype=dtype)


register(
    "fused_linear(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, str activation) -> Tensor",
    _fused,
    reference.fused_linear,
    _fused_shape,
)
register(
    "int8_linear(Tensor input, Tensor weight, Tensor input_scale, Tensor weight_scale, Tensor? bias, "
    "Tensor? residual, str activation, ScalarType dtype) -> Tensor",
    _int8,
    reference.int8_linear,
    _int8_shape,
)
