"""How an operator is made known to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from leanmark_kernels import _native

Function = Callable[..., Tensor | tuple[Tensor, Tensor]]

library = torch.library.Library("leanmark", "FRAGMENT")


def register(schema: str, meaning: Function, shape: Function) -> None:
    """Register the operator ``schema``: ``meaning`` computes it anywhere, ``shape`` while tracing.

    The native CPU kernel, where it is loaded, comes before ``meaning`` and brings the same schema.
    """
    name = schema.partition("(")[0]
    if not _native.available():
        library.define(schema)

    def without_native(input: Tensor, *others: Any) -> Tensor | tuple[Tensor, Tensor]:
        if input.device.type == "cpu":
            _native.warn_slow_reference()
        return meaning(input, *others)

    def traced(input: Tensor, *others: Any) -> Tensor | tuple[Tensor, Tensor]:
        # Also taken for a real input and weights on meta, where shape would return memory nobody wrote.
        for other in others:
            if isinstance(other, Tensor) and other.device != input.device:
                raise RuntimeError(f"{name}: tensors are on {input.device} and {other.device}")
        return shape(input, *others)

    library.impl(name, without_native, "CompositeExplicitAutograd")
    torch.library.register_fake(f"leanmark::{name}", traced, lib=library)


def for_inference(operator: str, output: Tensor) -> Tensor:
    """``output``, whose backward pass is an error rather than a silent gap in the gradient.

    A registered backward function would do the same, and cost every call 5 µs, with or without gradients.
    """
    if output.requires_grad:

        def refuse(gradient: Tensor) -> None:
            raise NotImplementedError(
                f"{operator} has no gradient, since its weights are packed for inference. "
                "Train the layer they were packed from, or call this one under torch.no_grad()."
            )

        output.register_hook(refuse)
    return output
