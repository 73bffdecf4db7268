"""Linear layers on packed weights of 32, 16 or 8 bits, in fp32 arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import packing, reference
from leanmark_kernels.ops.arguments import require_device, require_float32, require_vector
from leanmark_kernels.ops.registration import register, with_gradient


def packed_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    relu: bool = False,
) -> Tensor:
    """``(input @ w.T) * scale + bias``, then ReLU if asked for; for few rows, and differentiable.

    ``input`` is float32 [*, K] of any strides; ``weight`` is what
    :func:`leanmark_kernels.packing.pack_linear` made of w [out_features, K], which is float32, float16,
    bfloat16 or int8; ``scale`` and ``bias`` are float32 [out_features] or ``None``. Returns float32
    [*, out_features].

    Numerics: weights become float32 without loss, products are added up in float32, so the error is that of a
    float32 product with the stored weights, about sqrt(K) 6e-8 |input| |w|; what rounding the weights to 16
    or 8 bits costs comes on top. NaN and infinity pass through. With AVX-512 VNNI, a single row times int8 is
    added up exactly instead, once what lies below 2^-6 of its largest magnitude is rounded to 2^-29 of that.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes or devices that do not fit.
    """
    require_float32("packed_linear", input=input, scale=scale, bias=bias)
    _check_weight(input, weight, out_features)
    require_vector("packed_linear", out_features, scale=scale, bias=bias)
    require_device("packed_linear", input, weight=weight, scale=scale, bias=bias)
    arguments = (input, weight, scale, bias, out_features, relu)
    output: Tensor = torch.ops.leanmark.packed_linear.default(*arguments)
    return with_gradient(reference.packed_linear, output, *arguments)


def _check_weight(input: Tensor, weight: Tensor, out_features: int) -> None:
    if weight.dtype not in packing.LINEAR_DTYPES:
        legal = ", ".join(str(dtype) for dtype in packing.LINEAR_DTYPES)
        raise TypeError(f"packed_linear: weight is {weight.dtype}; it must be one of {legal}")
    if input.dim() < 1:
        raise ValueError("packed_linear: input is []; it must be [*, K]")
    expected = packing.linear_shape(out_features, input.shape[-1], weight.dtype)
    if weight.shape != expected:
        raise ValueError(
            f"packed_linear: weight is {list(weight.shape)}; it must be {list(expected)}, as pack_linear "
            f"makes {weight.dtype}, since input is {list(input.shape)} and out_features {out_features}"
        )


def _shape(
    input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, out_features: int, relu: bool
) -> Tensor:
    return input.new_empty((*input.shape[:-1], out_features))


register(
    "packed_linear(Tensor input, Tensor weight, Tensor? scale, Tensor? bias, int out_features, bool relu) "
    "-> Tensor",
    reference.packed_linear,
    _shape,
)
