"""Linear layers with sparse weights."""

from __future__ import annotations

import torch
from torch import Tensor

from leanmark_kernels import sparse_reference
from leanmark_kernels.ops.arguments import (
    require_device,
    require_float32,
    require_parts,
    require_shape,
    require_vector,
)
from leanmark_kernels.ops.registration import register, with_gradient
from leanmark_kernels.ops.sparse_arguments import require_packed
from leanmark_kernels.sparse_packing import SparseWeight


def sparse_linear(
    input: Tensor,
    weight: SparseWeight,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_features: int,
    relu: bool = False,
    few_rows: Tensor | None = None,
) -> Tensor:
    """``input @ w.T + bias + residual``, then ReLU if asked for, without the zeros of w; differentiable.

    ``input`` is float32 [*, K] of any strides; ``weight`` is what
    :func:`leanmark_kernels.sparse_packing.pack_sparse` made of w [out_features, K]; ``bias`` is float32
    [out_features], ``residual`` float32 [*, out_features], or ``None``. Returns float32 [*, out_features].
    ``few_rows`` is the same weight by :func:`leanmark_kernels.sparse_few_rows.pack_few_rows`, with which few
    rows of ``input`` (up to 3 to 12, by block and instruction set) take much less time, or ``None``, as where
    the values of ``weight`` are trained.

    Numerics: those of a float32 product, about sqrt(K) 6e-8 |input| |w|. A NaN or infinity in ``input`` that
    meets zeros of w only does not reach the output, as it would in a dense product. With ``few_rows`` it can:
    where one of 16 outputs has a weight for it, it can make NaN of all 16.

    Raises ``TypeError`` for other dtypes, ``ValueError`` for shapes or devices that do not fit.
    """
    require_parts("sparse_linear", SparseWeight, "weight", weight)
    values, indices, starts = weight
    require_float32("sparse_linear", input=input, values=values, bias=bias, residual=residual)
    if input.dim() < 1 or input.shape[-1] < 1:
        raise ValueError(f"sparse_linear: input is {list(input.shape)}; it must be [*, K] with K at least 1")
    require_packed("sparse_linear", weight, out_features, input.shape[-1], 1)
    require_vector("sparse_linear", out_features, bias=bias)
    require_shape("sparse_linear", (*input.shape[:-1], out_features), residual=residual)
    require_device(
        "sparse_linear", input, values=values, indices=indices, starts=starts, bias=bias, residual=residual,
        few_rows=few_rows,
    )  # fmt: skip
    arguments = (input, values, indices, starts, bias, residual, out_features, relu, few_rows)
    output: Tensor = torch.ops.leanmark.sparse_linear.default(*arguments)
    return with_gradient(sparse_reference.sparse_linear, output, *arguments)


def _shape(
    input: Tensor,
    values: Tensor,
    indices: Tensor,
    starts: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    relu: bool,
    few_rows: Tensor | None = None,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], out_features))


register(
    "sparse_linear(Tensor input, Tensor values, Tensor indices, Tensor starts, Tensor? bias, "
    "Tensor? residual, int out_features, bool relu, Tensor? few_rows=None) -> Tensor",
    sparse_reference.sparse_linear,
    _shape,
)
