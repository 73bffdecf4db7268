"""Pooling of images in channels_last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leanmark_kernels import reference
from leanmark_kernels.ops.arguments import Pair, pairs_of, require_float32, require_windows
from leanmark_kernels.ops.registration import empty_images, register, with_gradient

MOST_TAPS = 64
"""Of a window."""


def max_pool2d(input: Tensor, kernel_size: Pair, stride: Pair, padding: Pair = (0, 0)) -> Tensor:
    """``torch.nn.functional.max_pool2d(input, kernel_size, stride, padding)``; differentiable.

    ``input`` is float32 [N, C, H, W], fastest in ``torch.channels_last``; a window has at most 64 pixels.
    Returns float32 [N, C, H', W'] in channels_last. The padding is never the largest; NaN passes through.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for shapes and steps that do not fit.
    """
    try:  # what is checked before every call would take three times as long as the call
        (height, width), (down, right), (above, left) = kernel_size, stride, padding
        window = (height, width, down, right, above, left)
        output: Tensor = torch.ops.leanmark.max_pool2d.default(input, window)
    except (RuntimeError, TypeError, ValueError):
        require_float32("max_pool2d", input=input)
        _output_shape(input, kernel_size, stride, padding)
        raise
    return with_gradient(reference.max_pool2d, output, input, window)


def mean_pool2d(input: Tensor) -> Tensor:
    """The mean over all pixels, float32 [N, C, H, W] -> [N, C, 1, 1]; differentiable.

    ``input`` is fastest in ``torch.channels_last``. Numerics: sums of 64 pixels are added up.

    Raises ``TypeError`` for a dtype other than float32, ``ValueError`` for an image without pixels.
    """
    try:
        output: Tensor = torch.ops.leanmark.mean_pool2d.default(input)
    except RuntimeError:
        require_float32("mean_pool2d", input=input)
        _one_pixel(input)
        raise
    return with_gradient(reference.mean_pool2d, output, input)


def _output_shape(input: Tensor, kernel_size: Pair, stride: Pair, padding: Pair) -> tuple[int, ...]:
    windows = require_windows("max_pool2d", input, kernel_size, stride, padding, most_taps=MOST_TAPS)
    if any(2 * p > k for p, k in zip(padding, kernel_size, strict=True)):
        raise ValueError(f"max_pool2d: padding is {padding}; it must be at most half of {kernel_size}")
    if 0 in input.shape[2:]:
        raise ValueError(f"max_pool2d: input is {list(input.shape)}; its height and width must be at least 1")
    return (*input.shape[:2], *windows)


def _one_pixel(input: Tensor) -> tuple[int, ...]:
    if input.dim() != 4 or 0 in input.shape[2:]:
        raise ValueError(
            f"mean_pool2d: input is {list(input.shape)}; it must be [N, C, H, W], H and W at least 1"
        )
    return (*input.shape[:2], 1, 1)


def _largest(input: Tensor, window: Sequence[int]) -> Tensor:
    require_float32("max_pool2d", input=input)
    _output_shape(input, *pairs_of(window))
    return reference.max_pool2d(input, window)


def _mean(input: Tensor) -> Tensor:
    require_float32("mean_pool2d", input=input)
    _one_pixel(input)
    return reference.mean_pool2d(input)


register(
    "max_pool2d(Tensor input, int[] window) -> Tensor",
    _largest,
    lambda input, window: empty_images(input, _output_shape(input, *pairs_of(window))),
)
register("mean_pool2d(Tensor input) -> Tensor", _mean, lambda input: empty_images(input, _one_pixel(input)))
