"""Linear layers with 4-bit weights, whose activations are rounded to 8 bits on the way in."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import integer_reference
from leanmark_kernels.integer_packing import DEPTH_STEP, GROUP_STEP
from leanmark_kernels.ops.arguments import require_device, require_float32, require_vector
from leanmark_kernels.ops.registration import for_inference, register
from leanmark_kernels.packing import PANEL_WIDTH


def w4a8_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    relu: bool = False,
) -> Tensor:
    """``input @ w.T + bias``, then ReLU if asked for; for inference.

    ``input`` is float32 [*, K] of any strides; ``weight``, ``scale`` and ``zero`` are what
    :func:`leanmark_kernels.integer_packing.pack_int4` made of w [out_features, K] in groups of a multiple of
    32; ``bias`` is float32 [out_features] or ``None``. Returns float32 [*, out_features].

    Numerics: those of MatMulNBits of ONNX Runtime with 4 bits, ``block_size`` the group and
    ``accuracy_level`` 4. A group of activations is rounded to q = round(x * 127 / max|x|), ties to even;
    products within a group are added up exactly as integers, the groups in float32, in another order than
    ONNX Runtime's. A row that holds NaN or infinity becomes NaN; a group below 2^-119 counts as zeros.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes or devices that do not fit. The backward
    pass raises ``NotImplementedError``.
    """
    require_float32("w4a8_linear", input=input, scale=scale, zero=zero, bias=bias)
    _check(input, weight, scale, zero, out_features)
    require_vector("w4a8_linear", out_features, bias=bias)
    require_device("w4a8_linear", input, weight=weight, scale=scale, zero=zero, bias=bias)
    output: Tensor = torch.ops.leanmark.w4a8_linear.default(
        input, weight, scale, zero, bias, out_features, relu
    )
    return for_inference("w4a8_linear", output)


def _check(input: Tensor, weight: Tensor, scale: Tensor, zero: Tensor | None, out_features: int) -> None:
    if weight.dtype != torch.uint8:
        raise TypeError(f"w4a8_linear: weight is {weight.dtype}; it must be torch.uint8")
    if input.dim() < 1:
        raise ValueError("w4a8_linear: input is []; it must be [*, K]")
    depth, panels = input.shape[-1], -(-out_features // PANEL_WIDTH)
    if depth % GROUP_STEP:
        raise ValueError(
            f"w4a8_linear: input is {list(input.shape)}; its last dimension must be a multiple of "
            f"{GROUP_STEP}"
        )
    expected = (panels, depth // DEPTH_STEP, PANEL_WIDTH, 4)
    if weight.shape != expected:
        raise ValueError(
            f"w4a8_linear: weight is {list(weight.shape)}; it must be {list(expected)}, as pack_int4 makes "
            f"it, since input is {list(input.shape)} and out_features {out_features}"
        )
    groups = scale.shape[1] if scale.dim() == 3 else 0
    if scale.shape != (panels, groups, PANEL_WIDTH) or (depth and not groups):
        raise ValueError(
            f"w4a8_linear: scale is {list(scale.shape)}; it must be [{panels}, groups, {PANEL_WIDTH}]"
        )
    if depth and depth % (groups * GROUP_STEP):
        raise ValueError(
            f"w4a8_linear: scale is {list(scale.shape)}; its {groups} groups must cut K = {depth} into "
            f"multiples of {GROUP_STEP}"
        )
    if zero is not None and zero.shape != scale.shape:
        raise ValueError(
            f"w4a8_linear: zero is {list(zero.shape)}; it must be {list(scale.shape)}, as scale, or None"
        )


def _shape(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    relu: bool,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], out_features))


register(
    "w4a8_linear(Tensor input, Tensor weight, Tensor scale, Tensor? zero, Tensor? bias, int out_features, "
    "bool relu) -> Tensor",
    integer_reference.w4a8_linear,
    _shape,
)
