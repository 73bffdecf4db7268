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


def empty_images(input: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The result of a convolution on the device of ``input``, for the shape function of one."""
    return torch.empty(shape, dtype=torch.float32, device=input.device, memory_format=torch.channels_last)


def with_gradient(meaning: Callable[..., Tensor], output: Tensor, *arguments: Any) -> Tensor:
    """``output`` of an operator, with the gradient of ``meaning(*arguments)``, which defines the operator.

    The definition is computed in the backward pass, for which nothing but the arguments is kept. A registered
    backward function would cost every call 5 µs, with or without gradients.
    """
    if not output.requires_grad:
        return output
    if torch.compiler.is_compiling():
        return meaning(*arguments)
    result: Tensor = _OfMeaning.apply(meaning, output.detach(), *arguments)  # type: ignore[no-untyped-call]
    return result


class _OfMeaning(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, meaning: Function, output: Tensor, *arguments: Any) -> Tensor:
        ctx.meaning = meaning
        ctx.others = [None if isinstance(each, Tensor) else each for each in arguments]
        ctx.save_for_backward(*(each if isinstance(each, Tensor) else None for each in arguments))
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        tensors = [
            None if each is None else each.detach().requires_grad_(need)
            for each, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad():
            output = ctx.meaning(
                *(other if each is None else each for each, other in zip(tensors, ctx.others, strict=True))
            )
        wanted = [each for each in tensors if each is not None and each.requires_grad]
        found = iter(torch.autograd.grad(output, wanted, gradient))
        return (None, None, *(next(found) if need else None for need in needed))


def for_inference(operator: str, output: Tensor) -> Tensor:
    """``output``, whose backward pass is an error rather than a silent gap in the gradient."""
    if output.requires_grad:

        def refuse(gradient: Tensor) -> None:
            raise NotImplementedError(
                f"{operator} has no gradient: it is for inference. Train what it was made from, or call it "
                "under torch.no_grad()."
            )

        output.register_hook(refuse)
    return output
