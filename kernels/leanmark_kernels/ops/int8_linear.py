"""Exact linear layers of 8-bit integers, and the rounding of activations to them."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import integer_reference
from leanmark_kernels.integer_packing import (
    MOST_DEPTH,
    PackedInt8,
    Quantized,
    int8_linear_shape,
    require_bits,
)
from leanmark_kernels.ops.arguments import (
    require_device,
    require_float32,
    require_parts,
    require_vector,
)
from leanmark_kernels.ops.registration import for_inference, register

DTYPES = {torch.int8: (-128, 127), torch.uint8: (0, 255)}


def int8_linear(
    input: Quantized,
    weight: PackedInt8,
    bias: Tensor | None = None,
    *,
    out_features: int,
    relu: bool = False,
) -> Tensor:
    """``((values - zero_point) @ w.T) * (input scale * weight scale) + bias``, then ReLU if asked for.

    ``input`` holds int8 or uint8 [*, K] of any strides with K up to 65536, and a scale for all or for each
    row; ``weight`` what :func:`leanmark_kernels.integer_packing.pack_int8_linear` made of w int8
    [out_features, K], and its scale; ``bias`` is float32 [out_features] or ``None``. Returns float32
    [*, out_features].

    Numerics: the product is exact whatever the values are, where the 8-bit kernels of other libraries
    saturate on CPUs without VNNI; then come one rounding to float32, one per multiplication and one per
    addition. With AVX2 it is fastest where the values of ``input`` and of ``weight`` keep to 7 bits. NaN and
    infinity in the input's scale and in ``bias`` pass through.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes, zero points or devices that do not fit,
    ``RuntimeError`` for a scale of ``weight`` that is not finite. The backward pass raises
    ``NotImplementedError``.
    """
    require_parts("int8_linear", Quantized, "input", input)
    require_parts("int8_linear", PackedInt8, "weight", weight)
    values, input_scale, zero_point = input
    packed, scale = weight
    require_integers("int8_linear", values, zero_point)
    require_float32("int8_linear", scale=scale, input_scale=input_scale, bias=bias)
    _check("int8_linear", values, packed, out_features)
    require_vector("int8_linear", out_features, scale=scale, bias=bias)
    require_input_scale("int8_linear", input_scale, values.shape[:-1].numel(), "rows")
    require_device("int8_linear", values, weight=packed, scale=scale, input_scale=input_scale, bias=bias)
    output: Tensor = torch.ops.leanmark.int8_linear.default(
        values, packed, scale, input_scale, zero_point, bias, out_features, relu
    )
    return for_inference("int8_linear", output)


def int8_dynamic_linear(
    input: Tensor,
    weight: PackedInt8,
    bias: Tensor | None = None,
    *,
    out_features: int,
    bits: int = 8,
    relu: bool = False,
) -> Tensor:
    """:func:`int8_linear` of the rows of ``input`` float32 [*, K] as :func:`quantize_int8` rounds them.

    One operator in place of two: with one row, a call would cost as much as the product. Returns float32
    [*, out_features], bit for bit what the two give.

    Raises the errors of both.
    """
    require_parts("int8_dynamic_linear", PackedInt8, "weight", weight)
    packed, scale = weight
    try:  # what is checked before every call would add as much as the call itself
        output: Tensor = torch.ops.leanmark.int8_dynamic_linear.default(
            input, packed, scale, bias, bits, out_features, relu
        )
    except RuntimeError:
        _check_dynamic(input, packed, scale, bias, bits, out_features)
        raise
    return for_inference("int8_dynamic_linear", output)


def quantize_int8(input: Tensor, *, bits: int = 8) -> Quantized:
    """Rows of ``input`` float32 [R, K] as int8 [R, K], with a scale for each row.

    A row's largest magnitude becomes 2^(bits - 1) - 1, ties round to even. A row of zeros gets the scale 1;
    one that holds NaN or infinity gets the scale NaN, so that what is computed from it is NaN.

    Raises ``TypeError`` for another dtype, ``ValueError`` for another shape and for ``bits`` other than 7, 8.
    """
    require_float32("quantize_int8", input=input)
    require_bits("quantize_int8", bits)
    if input.dim() != 2:
        raise ValueError(f"quantize_int8: input is {list(input.shape)}; it must be [R, K]")
    values, scale = torch.ops.leanmark.quantize_int8.default(input, bits)
    return Quantized(values, scale)


def require_integers(operator: str, input: Tensor, zero_point: int) -> None:
    if input.dtype not in DTYPES:
        raise TypeError(f"{operator}: input is {input.dtype}; it must be torch.int8 or torch.uint8")
    low, high = DTYPES[input.dtype]
    if not isinstance(zero_point, int) or not low <= zero_point <= high:
        raise ValueError(
            f"{operator}: zero_point is {zero_point}; it must be from {low} to {high}, since input is "
            f"{input.dtype}"
        )


def require_input_scale(operator: str, input_scale: Tensor, count: int, name: str) -> None:
    if input_scale.shape not in ((1,), (count,)):
        raise ValueError(
            f"{operator}: input_scale is {list(input_scale.shape)}; it must be [1] or [{name}] = [{count}]"
        )


def _check(operator: str, input: Tensor, weight: Tensor, out_features: int) -> None:
    if weight.dtype is not torch.int8:
        raise TypeError(f"{operator}: weight is {weight.dtype}; it must be torch.int8")
    shape = input.shape
    if not shape or shape[-1] > MOST_DEPTH:
        raise ValueError(f"{operator}: input is {list(shape)}; it must be [*, K] with K up to {MOST_DEPTH}")
    expected = int8_linear_shape(out_features, shape[-1])
    if weight.shape != expected:
        raise ValueError(
            f"{operator}: weight is {list(weight.shape)}; it must be {list(expected)}, as pack_int8_linear "
            f"makes it, since input is {list(shape)} and out_features {out_features}"
        )


def _check_dynamic(
    input: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, bits: int, out_features: int
) -> None:
    name = "int8_dynamic_linear"
    require_float32(name, input=input, scale=scale, bias=bias)
    require_bits(name, bits)
    _check(name, input, weight, out_features)
    require_vector(name, out_features, scale=scale, bias=bias)
    require_device(name, input, weight=weight, scale=scale, bias=bias)


def _shape(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    input_scale: Tensor,
    zero_point: int,
    bias: Tensor | None,
    out_features: int,
    relu: bool,
) -> Tensor:
    return scale.new_empty((*input.shape[:-1], out_features))


def _dynamic_shape(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    bits: int,
    out_features: int,
    relu: bool,
) -> Tensor:
    _check_dynamic(input, weight, scale, bias, bits, out_features)
    return input.new_empty((*input.shape[:-1], out_features))


def _dynamic(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    bits: int,
    out_features: int,
    relu: bool,
) -> Tensor:
    _check_dynamic(input, weight, scale, bias, bits, out_features)
    return integer_reference.int8_dynamic_linear(input, weight, scale, bias, bits, out_features, relu)


def _quantized_shapes(input: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return torch.empty(input.shape, dtype=torch.int8, device=input.device), input.new_empty(input.shape[0])


register(
    "int8_linear(Tensor input, Tensor weight, Tensor scale, Tensor input_scale, int zero_point, "
    "Tensor? bias, int out_features, bool relu) -> Tensor",
    integer_reference.int8_linear,
    _shape,
)
register(
    "int8_dynamic_linear(Tensor input, Tensor weight, Tensor scale, Tensor? bias, int bits, "
    "int out_features, bool relu) -> Tensor",
    _dynamic,
    _dynamic_shape,
)
register(
    "quantize_int8(Tensor input, int bits) -> (Tensor, Tensor)",
    integer_reference.quantize_int8,
    _quantized_shapes,
)
