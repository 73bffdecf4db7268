"""Checks that several operators share; each names the argument and what would be legal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Pair = tuple[int, int]
"""Height and width."""

LARGEST = 2**20 - 1
"""Of windows, steps and padding: beyond, sizes that kernels compute from them would leave 64 bits."""


def require_float32(operator: str, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"{operator}: {name} is a {type(tensor).__name__}; it must be a torch.Tensor")
        if tensor is not None and tensor.dtype is not torch.float32:
            raise TypeError(f"{operator}: {name} is {tensor.dtype}; it must be torch.float32")


def require_device(operator: str, input: Tensor, **others: Tensor | None) -> None:
    for name, tensor in others.items():
        if tensor is not None and tensor.device != input.device:
            raise ValueError(
                f"{operator}: {name} is on {tensor.device}; it must be on {input.device}, where input is"
            )


def require_vector(operator: str, length: int, **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != (length,):
            raise ValueError(f"{operator}: {name} is {list(tensor.shape)}; it must be [{length}] or None")


def require_whole(operator: str, least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int | torch.SymInt):
            raise TypeError(f"{operator}: {name} is {number!r}; it must be one whole number")
        if number < least:
            raise ValueError(f"{operator}: {name} is {number}; it must be {least} or more")
        if number > LARGEST:
            raise ValueError(f"{operator}: {name} is {number}; it must be at most {LARGEST}")


def require_pairs(operator: str, least: int, **pairs: Pair) -> None:
    """For height and width."""
    for name, pair in pairs.items():
        whole = isinstance(pair, tuple | list) and all(isinstance(one, int | torch.SymInt) for one in pair)
        if not whole or len(pair) != 2:
            raise TypeError(f"{operator}: {name} is {pair!r}; it must be two whole numbers, for both axes")
        if min(pair) < least:
            raise ValueError(
                f"{operator}: {name} is {list(pair)}; it must be two numbers of at least {least}"
            )
        if max(pair) > LARGEST:
            raise ValueError(f"{operator}: {name} is {list(pair)}; it must be two numbers up to {LARGEST}")


def require_windows(
    operator: str,
    input: Tensor,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    most_taps: int = LARGEST,
) -> Pair:
    """How many windows of ``most_taps`` pixels at most the images [N, C, H, W] have, along each axis."""
    if input.dim() != 4:
        raise ValueError(f"{operator}: input is {list(input.shape)}; it must be [N, C, H, W]")
    require_pairs(operator, 1, kernel_size=kernel_size, stride=stride, dilation=dilation)
    require_pairs(operator, 0, padding=padding)
    if math.prod(kernel_size) > most_taps:
        raise ValueError(f"{operator}: kernel_size is {kernel_size}; it must have at most {most_taps} taps")
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True)]
    padded = [size + 2 * p for size, p in zip(input.shape[2:], padding, strict=True)]
    if padded[0] < reach[0] or padded[1] < reach[1]:
        raise ValueError(
            f"{operator}: input is {list(input.shape)}; with padding {padding} its height and width must be "
            f"at least {[max(1, r - 2 * p) for r, p in zip(reach, padding, strict=True)]}"
        )
    height, width = ((size - r) // step + 1 for size, r, step in zip(padded, reach, stride, strict=True))
    return height, width


def pairs_of(window: Sequence[int]) -> list[Pair]:
    """The kernel_size, stride, padding and, where it has one, dilation that an operator takes in one list.

    torch takes as long to hand over an empty list as sixteen numbers in it.
    """
    return [(window[at], window[at + 1]) for at in range(0, len(window), 2)]


def require_3x3(operator: str, input: Tensor, padding: int) -> None:
    """``input`` [N, C, H, W] is large enough for a 3x3 convolution with ``padding``."""
    require_whole(operator, 0, padding=padding)
    if min(input.shape[2:]) + 2 * padding < 3:
        raise ValueError(
            f"{operator}: input is {list(input.shape)}; with padding {padding} its height and width must be "
            f"at least {3 - 2 * padding}"
        )


def shape_3x3(input: Tensor, channels: int, padding: int, stride: int = 1) -> tuple[int, ...]:
    """Of the output of a 3x3 convolution."""
    sizes = ((size + 2 * padding - 3) // stride + 1 for size in input.shape[2:])
    return (input.shape[0], channels, *sizes)


def require_shape(operator: str, shape: Sequence[int], **tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != tuple(shape):
            raise ValueError(f"{operator}: {name} is {list(tensor.shape)}; it must be {list(shape)} or None")


def require_parts(operator: str, kind: type[NamedTuple], name: str, parts: Any) -> None:
    """``parts`` is a ``kind``, or a tuple of as many."""
    fields = kind._fields
    if not isinstance(parts, tuple) or len(parts) != len(fields):
        raise TypeError(
            f"{operator}: {name} is a {type(parts).__name__}; it must be {kind.__name__}({', '.join(fields)})"
        )
