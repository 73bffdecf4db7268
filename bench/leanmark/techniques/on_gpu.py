"""A model as it is converted on a GPU: there already, in the dtype that its kernels are for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from leanmark.techniques.autocast import Autocast, Rounded

Convert = Callable[[nn.Module, Tensor], nn.Module]


def converted(
    model: nn.Module, example: Tensor, convert: Convert, *, lower: bool, device: str = "cuda"
) -> nn.Module:
    """``convert(model, example)`` on ``device``, between conversions of what comes in and goes out.

    After ``bf16`` the whole model is in bfloat16, not only what autocast would choose, and so it is with
    ``lower``, since products of few bits are made for that; otherwise it stays in float32.
    """
    inner, dtype = model, torch.bfloat16 if lower else torch.float32
    if isinstance(model, Autocast):
        inner, dtype = model.module, model.dtype
    rounded = Rounded(copy.deepcopy(inner).to(device), dtype)
    given = example.to(device, dtype) if example.is_floating_point() else example.to(device)
    with _no_tf32():
        rounded.module = convert(rounded.module, given)
    return rounded


@contextmanager
def _no_tf32() -> Iterator[None]:
    """Time torch's float32 as it will run: torch's own default is TF32 in convolutions."""
    backends: Any = torch.backends  # its annotations know no precisions
    products = backends.cuda.matmul, backends.cudnn.conv
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "ieee"
        yield
    finally:
        for product, how in zip(products, before, strict=True):
            product.fp32_precision = how
