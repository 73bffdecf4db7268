"""How an operator is made known to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from leanmark_kernels import _native

Function = Callable[..., Tensor | tuple[Tensor, Tensor]]

library = torch.library.Library("leanmark", "FRAGMENT")


def register(schema: str, meaning: Function, shape: Function) -> None:
    """Register the operator ``schema``: ``meaning`` computes it anywhere, ``shape`` while tracing.

    The native CPU kernel, where it is loaded, comes before ``meaning`` and brings the same schema. Each of
    the two lists the arguments of the schema: what an operator is tested against shares nothing with it.
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


def forward_mode() -> bool:
    """Whether derivatives are computed along with the numbers, where torch would silently take ours for 0."""
    return forward_ad._current_level >= 0


def with_gradient(meaning: Callable[..., Tensor], output: Tensor, *arguments: Any) -> Tensor:
    """``output`` of an operator, with the gradient of ``meaning(*arguments)``, which defines the operator.

    The definition is computed in the backward pass, for which nothing but the arguments is kept. A registered
    backward function would cost every call 5 µs, with or without gradients.
    """
    if forward_mode() or (output.requires_grad and torch.compiler.is_compiling()):
        return meaning(*arguments)
    if not output.requires_grad:
        return output
    result: Tensor = _OfMeaning.apply(meaning, output.detach(), *arguments)  # type: ignore[no-untyped-call]
    return result


class _OfMeaning(torch.autograd.Function):
    @staticmethod
    def forward(meaning: Function, output: Tensor, *arguments: Any) -> Tensor:
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.meaning, _, *arguments = inputs
        ctx.mark_dirty(output)  # or it would be a view, which nobody may change in place
        ctx.others = [None if isinstance(each, Tensor) else each for each in arguments]
        ctx.save_for_backward(*(each if isinstance(each, Tensor) else None for each in arguments))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, arguments = ctx.saved_tensors, list(ctx.others)
        wanted = [place for place, needed in enumerate(ctx.needs_input_grad[2:]) if needed]

        def meaning(*tensors: Tensor) -> Tensor:
            for place, tensor in zip(wanted, tensors, strict=True):
                arguments[place] = tensor
            output: Tensor = ctx.meaning(*arguments)
            return output

        for place, tensor in enumerate(saved):
            arguments[place] = arguments[place] if tensor is None else tensor
        pull_back = torch.func.vjp(meaning, *(saved[place] for place in wanted))[1]
        found = dict(zip(wanted, pull_back(gradient), strict=True))
        return (None, None, *(found.get(place) for place in range(len(saved))))


def for_inference(operator: str, output: Tensor) -> Tensor:
    """``output``, whose derivative is an error rather than a silent gap."""

    def refuse(gradient: Tensor | None = None) -> None:
        raise NotImplementedError(
            f"{operator} has no gradient: it is for inference. Train what it was made from, or call it "
            "under torch.no_grad()."
        )

    if forward_mode():
        refuse()
    if output.requires_grad:
        output.register_hook(refuse)
    return output
