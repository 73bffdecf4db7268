"""Runs linear layers and Winograd on random shapes, up to the first wrong output: ``random_shapes.py COUNT``.

A program, so that tests can run it under any instruction set and under a sanitizer. All memory that torch
hands out is poisoned with NaN first: an output that is not written, and scratch memory that is read before it
is written, shows.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import integer_packing, linear_relu, packed_linear, packing, winograd_conv2d
from leanmark_kernels.winograd_forms import FORMS

ROUNDING = 2.0**-24


def main(count: int) -> None:
    torch.use_deterministic_algorithms(True)
    assert torch.empty(100).isnan().all(), "memory is not poisoned"
    with torch.no_grad():
        for seed in range(count):
            torch.manual_seed(seed)
            torch.set_num_threads(1 + seed % 3)
            (check_winograd if seed % 2 else check_linear)(random.Random(seed))
    print(leanmark_kernels.instruction_set(), count)


def check_winograd(draw: random.Random) -> None:
    form, padding, relu = draw.choice(FORMS), draw.choice([0, 1, 1, 2, 3]), draw.random() < 0.5
    channels, filters = (draw.choice([draw.randint(1, 20), 16, 64, 70]) for _ in range(2))
    batch, height, width = (
        draw.choice([0, 1, 1, 2, 5]),
        *(max(form.kernel - 2 * padding, draw.randint(1, 15)) for _ in "hw"),
    )
    input = strided(draw, batch, channels, height, width)
    weight = torch.randn(filters, channels, form.kernel, form.kernel)
    bias = torch.randn(filters) if draw.random() < 0.7 else None
    shape = batch, filters, *(form.size(size, padding) for size in (height, width))
    residual = strided(draw, *shape) if draw.random() < 0.3 else None

    as_stored = form.tile == 4 and draw.random() < 0.5
    packed = packing.pack_winograd(weight, form.tile, form.stride, as_stored=as_stored)
    options: dict[str, Any] = {"padding": padding, "stride": form.stride}
    actual = winograd_conv2d(input, packed, bias, residual, out_channels=filters, relu=relu, **options)
    assert actual.shape == shape
    assert actual.is_contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(input.double(), weight.double(), **options)
    size = F.conv2d(input.double().abs(), weight.double().abs(), **options)
    # One bound for all pixels, since a tile mixes its pixels; measured worst cases are about half of it.
    tolerance = ROUNDING * (4 if form.tile == 2 else 80) * (size.max() if size.numel() else 0)
    per_pixel = None if bias is None else bias[:, None, None]
    expect(actual, exact, per_pixel, residual, relu, tolerance)


def check_linear(draw: random.Random) -> None:
    rows, relu = draw.choice([0, 1, 2, 3, 5, 7, 8, 16, 33]), draw.random() < 0.5
    depth = draw.choice([0, 1, 2, draw.randint(3, 70), draw.randint(100, 300), 1024])
    columns = draw.choice([0, 1, draw.randint(2, 40), 64, draw.randint(100, 300)])
    input = torch.randn(rows, 2 * depth)[:, ::2] if draw.random() < 0.3 else torch.randn(rows, depth)
    weight, scale = torch.randn(columns, depth), None
    dtype = draw.choice(packing.LINEAR_DTYPES)
    if dtype == torch.int8:
        weight, scale = integer_packing.quantize_channels(weight)
    weight = weight.to(dtype)
    bias = torch.randn(columns) if draw.random() < 0.7 else None

    packed = packing.pack_linear(weight)
    actual = packed_linear(input, packed, scale, bias, out_features=columns, relu=relu)
    assert actual.shape == (rows, columns)
    factor = 1.0 if scale is None else scale.double()
    exact = F.linear(input.double(), weight.double()) * factor
    size = F.linear(input.double().abs(), weight.double().abs()) * factor
    tolerance = ROUNDING * ((4 + 2 * depth**0.5) * size + (0 if bias is None else 4 * bias.abs()))
    expect(actual, exact, bias, None, relu, tolerance)
    if dtype == torch.float32:
        expect(linear_relu(input, weight, bias), exact, bias, None, True, tolerance)


def strided(draw: random.Random, *shape: int) -> Tensor:
    """Random numbers in one of the layouts that a caller may bring."""
    layout = draw.choice(["channels_last", "channels_last", "row major", "slice", "expanded"])
    if layout == "slice":
        batch, channels, height, width = shape
        return torch.randn(batch, channels + 2, height, 2 * width)[:, 1:-1, :, ::2]
    if layout == "expanded":
        return torch.randn(shape[1:]).expand(*shape)
    numbers = torch.randn(*shape)
    return numbers.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else numbers


def expect(
    actual: Tensor,
    exact: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    tolerance: Tensor | float,
) -> None:
    for other in (bias, residual):
        if other is not None:
            exact = exact + other
            tolerance = tolerance + 2 * ROUNDING * other.abs().double()
    expected = exact.relu() if relu else exact
    excess = (actual - expected).abs() - tolerance
    assert (excess <= 0).all(), f"off by {excess.max().item():g} more than {tolerance}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
