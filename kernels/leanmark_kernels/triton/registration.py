"""How an operator of this package is made known to torch, under ``leanmark_kernels::``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leanmark_kernels.triton import availability

Function = Callable[..., Tensor | tuple[Tensor, Tensor]]

library = torch.library.Library("leanmark_kernels", "FRAGMENT")


def register(schema: str, kernel: Function, meaning: Function, shape: Function) -> None:
    """Register ``schema``: ``kernel`` computes it in Triton, ``meaning`` in torch, ``shape`` traces it.

    Triton's kernel runs on CUDA, and in Triton's interpreter on CPU; every other device, and an installation
    without Triton, has the meaning.
    """
    name = schema.partition("(")[0]
    library.define(schema)

    def without_triton(*arguments: Any) -> Tensor | tuple[Tensor, Tensor]:
        availability.warn_slow_reference()
        return meaning(*arguments)

    def computed(*arguments: Any) -> Tensor | tuple[Tensor, Tensor]:
        return kernel(*arguments) if availability.available() else without_triton(*arguments)

    library.impl(name, computed, "CUDA")
    library.impl(name, computed if availability.interpreted() else without_triton, "CPU")
    torch.library.register_fake(f"leanmark_kernels::{name}", shape, lib=library)
