"""As random_shapes.py, for sparse, depthwise and direct operators and pools: ``sparse_shapes.py COUNT``."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from random_shapes import ROUNDING, expect, strided
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import (
    depthwise_conv2d,
    direct_conv2d,
    inverted_residual,
    max_pool2d,
    mean_pool2d,
    packing,
    sparse_conv2d,
    sparse_linear,
)
from leanmark_kernels.activations import ACTIVATIONS
from leanmark_kernels.depthwise_packing import pack_depthwise
from leanmark_kernels.ops.inverted_residual import InvertedResidualWeights
from leanmark_kernels.sparse_few_rows import pack_few_rows
from leanmark_kernels.sparse_packing import pack_sparse, unpack_sparse


def main(count: int) -> None:
    torch.use_deterministic_algorithms(True)
    assert torch.empty(100).isnan().all(), "memory is not poisoned"
    checks = (
        check_sparse_linear,
        check_sparse_conv2d,
        check_depthwise,
        check_inverted_residual,
        check_direct,
        check_pooling,
    )
    with torch.no_grad():
        check_wide_images()
        for seed in range(count):
            torch.manual_seed(seed)
            torch.set_num_threads(1 + seed // len(checks) % 3)
            checks[seed % len(checks)](random.Random(seed))
    print(leanmark_kernels.instruction_set(), count)


def sparse(draw: random.Random, *shape: int) -> Tensor:
    """At least one value is not zero; often whole stretches are, or whole blocks of four rows."""
    weight = torch.randn(*shape)
    weight *= torch.rand(weight.shape) < draw.choice([0.02, 0.1, 0.3, 1.0])
    if draw.random() < 0.3:
        weight *= (torch.rand(-(-shape[0] // 4), *shape[1:]) < 0.5).repeat_interleave(4, 0)[: shape[0]]
    if draw.random() < 0.3:
        weight[draw.randrange(shape[0]) :] = 0
    weight[(0,) * len(shape)] = 1.0
    return weight


def check_sparse_linear(draw: random.Random) -> None:
    rows, relu, block = (
        draw.choice([0, 1, 1, 2, 3, 4, draw.randint(5, 12), 16, 33, 65, 130]),
        draw.random() < 0.5,
        draw.choice([1, 4]),
    )
    depth = draw.choice([1, 2, draw.randint(3, 70), 256, draw.randint(250, 600)])
    columns = draw.choice([1, 4, draw.randint(2, 40), 64])
    input = torch.randn(rows, 2 * depth)[:, ::2] if draw.random() < 0.3 else torch.randn(rows, depth)
    weight = sparse(draw, columns, depth)
    bias = torch.randn(columns) if draw.random() < 0.7 else None
    residual = torch.randn(rows, columns) if draw.random() < 0.3 else None

    packed = pack_sparse(weight, block)
    assert unpack_sparse(packed, columns, depth, 1)[..., 0].equal(weight)
    exact = F.linear(input.double(), weight.double())
    size = F.linear(input.double().abs(), weight.double().abs())
    for few_rows in (None, pack_few_rows(packed, columns, depth)):
        actual = sparse_linear(
            input, packed, bias, residual, out_features=columns, relu=relu, few_rows=few_rows
        )
        assert actual.shape == (rows, columns)
        expect(actual, exact, bias, residual, relu, ROUNDING * (4 + 2 * depth**0.5) * size)


def check_sparse_conv2d(draw: random.Random) -> None:
    plain = draw.random() < 0.3  # 1x1, without steps
    kernel, stride, dilation = (
        (1, 1) if plain else (draw.randint(1, most), draw.randint(1, most)) for most in (5, 3, 3)
    )
    padding = (0, 0) if plain else (draw.randint(0, 3), draw.randint(0, 3))
    sides = [draw.choice([draw.randint(1, 18), 16]) for _ in "hw"]
    if draw.random() < 0.15:  # tiles that begin and end within a row
        sides = [draw.randint(1, 6), draw.randint(130, 600)]
    height, width = (
        max(1, (k - 1) * d + 1 - 2 * p, side)
        for k, d, p, side in zip(kernel, dilation, padding, sides, strict=True)
    )
    groups, block = draw.choice([1, 1, 1, 2, 3]), draw.choice([1, 4])
    channels, filters = groups * draw.choice([1, draw.randint(1, 20), 40]), groups * draw.randint(1, 14)
    input = strided(draw, draw.choice([0, 1, 1, 2, 4]), channels, height, width)
    weight = sparse(draw, filters, channels // groups, *kernel)
    bias = torch.randn(filters) if draw.random() < 0.7 else None
    relu = draw.random() < 0.5

    steps: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    exact = F.conv2d(input.double(), weight.double(), groups=groups, **steps)
    size = F.conv2d(input.double().abs(), weight.double().abs(), groups=groups, **steps)
    residual = strided(draw, *exact.shape) if draw.random() < 0.3 else None
    packed = pack_sparse(weight, block, groups)
    actual = sparse_conv2d(
        input, packed, bias, residual, out_channels=filters, kernel_size=kernel, **steps, relu=relu
    )
    assert actual.shape == exact.shape
    assert actual.is_contiguous()
    per_pixel = None if bias is None else bias[:, None, None]
    depth = weight[0].numel()
    expect(actual, exact, per_pixel, residual, relu, ROUNDING * (4 + 2 * depth**0.5) * size)


def check_wide_images() -> None:
    """A whole tile within one row that is not the first, where rows of the grid have room for the filter.

    The last ones are too wide for offsets of 16 bits.
    """
    torch.manual_seed(0)
    for channels, height, width in ((3, 6, 300), (3, 224, 224), (28, 3, 600), (28, 3, 1500)):
        input, weight = torch.randn(1, channels, height, width), torch.randn(5, channels, 3, 3)
        residual = torch.randn(1, 5, height, width)
        exact = F.conv2d(input.double(), weight.double(), padding=1)
        size = F.conv2d(input.double().abs(), weight.double().abs(), padding=1)
        for block in (1, 4):
            for added in (None, residual):
                actual = sparse_conv2d(
                    input, pack_sparse(weight, block), None, added,
                    out_channels=5, kernel_size=(3, 3), padding=(1, 1),
                )  # fmt: skip
                expect(
                    actual, exact, None, added, False, ROUNDING * (4 + 2 * weight[0].numel() ** 0.5) * size
                )


def check_depthwise(draw: random.Random) -> None:
    stride, padding = draw.choice([1, 2]), draw.choice([0, 1, 1, 1, 2, 3])
    channels = draw.choice([1, draw.randint(2, 20), 16, 64, 130, draw.randint(100, 140)])
    height, width = (max(1, 3 - 2 * padding, draw.randint(1, 16)) for _ in "hw")
    input = strided(draw, draw.choice([0, 1, 1, 2, 3]), channels, height, width)
    weight, bias = torch.randn(channels, 1, 3, 3), torch.randn(channels) if draw.random() < 0.7 else None
    activation = draw.choice(ACTIVATIONS)

    actual = depthwise_conv2d(
        input, pack_depthwise(weight), bias, stride=stride, padding=padding, activation=activation
    )
    exact = F.conv2d(
        input.double(),
        weight.double(),
        None if bias is None else bias.double(),
        stride,
        padding,
        groups=channels,
    )
    size = F.conv2d(input.double().abs(), weight.double().abs(), None, stride, padding, groups=channels)
    if bias is not None:
        size = size + bias.abs()[:, None, None]
    assert actual.shape == exact.shape
    assert actual.is_contiguous(memory_format=torch.channels_last)
    # An activation brings no two numbers further apart.
    within(
        actual,
        {"none": exact, "relu": exact.relu(), "relu6": F.relu6(exact)}[activation],
        ROUNDING * 9 * size,
    )


def check_direct(draw: random.Random) -> None:
    if draw.random() < 0.4:  # rows of pixels that do not end with those of the image
        kernel, stride, padding = (1, 1), (1, 1), (0, 0)
    else:
        kernel, stride = (
            (draw.choice([1, 1, 2, 3, 3, 5]), draw.choice([1, 1, 2, 3, 3, 7])),
            (1 + draw.randint(0, 2), draw.choice([1, 2])),
        )
        padding = (draw.choice([0, 0, 1, 3]), draw.choice([0, 0, 1, 2]))
    channels, filters = (draw.choice([1, 3, draw.randint(2, 40), 64]) for _ in "io")
    if draw.random() < 0.1:
        filters = draw.randint(120, 300)
    height, width = (max(1, k - 2 * p, draw.randint(1, 20)) for k, p in zip(kernel, padding, strict=True))
    input = strided(draw, draw.choice([0, 1, 1, 2, 3]), channels, height, width)
    weight, bias = (
        torch.randn(filters, channels, *kernel),
        torch.randn(filters) if draw.random() < 0.7 else None,
    )
    exact = F.conv2d(input.double(), weight.double(), None, stride, padding)
    size = F.conv2d(input.double().abs(), weight.double().abs(), None, stride, padding)
    residual = strided(draw, *exact.shape) if draw.random() < 0.3 else None
    activation = draw.choice(ACTIVATIONS)

    actual = direct_conv2d(
        input, packing.pack_direct(weight), bias, residual, out_channels=filters, kernel_size=kernel,
        stride=stride, padding=padding, activation=activation,
    )  # fmt: skip
    for other in (None if bias is None else bias[:, None, None], residual):
        if other is not None:
            exact, size = exact + other, size + other.abs()
    assert actual.shape == exact.shape
    assert actual.is_contiguous(memory_format=torch.channels_last)
    # An activation brings no two numbers further apart.
    within(
        actual,
        {"none": exact, "relu": exact.relu(), "relu6": F.relu6(exact)}[activation],
        ROUNDING * (4 + 2 * weight[0].numel() ** 0.5) * size,
    )


def check_pooling(draw: random.Random) -> None:
    kernel, stride = ((draw.randint(1, 5), draw.randint(1, 8)), (draw.randint(1, 3), draw.randint(1, 3)))
    padding = draw.randint(0, kernel[0] // 2), draw.randint(0, kernel[1] // 2)
    height, width = (max(1, k - 2 * p, draw.randint(1, 16)) for k, p in zip(kernel, padding, strict=True))
    channels = draw.choice([1, draw.randint(2, 20), 64, draw.randint(60, 140)])
    input = strided(draw, draw.choice([0, 1, 1, 2, 3]), channels, height, width)
    if input.numel() and draw.random() < 0.3:
        input = input.clone()
        input[:, draw.randrange(channels), draw.randrange(height)] = draw.choice([torch.nan, -torch.inf])

    largest = max_pool2d(input, kernel, stride, padding)
    exact = F.max_pool2d(input, kernel, stride, padding) if len(input) else torch.empty(largest.shape)
    torch.testing.assert_close(largest, exact, atol=0, rtol=0, equal_nan=True)
    assert largest.is_contiguous(memory_format=torch.channels_last)
    finite = input.nan_to_num(1.0, neginf=-1.0)
    size = ROUNDING * 30 * finite.double().abs().mean((2, 3), keepdim=True)
    within(mean_pool2d(finite), finite.double().mean((2, 3), keepdim=True), size)


def check_inverted_residual(draw: random.Random) -> None:
    stride, residual = draw.choice([(1, False), (1, True), (2, False)])
    channels, hidden = draw.choice([draw.randint(1, 20), 16]), draw.choice([draw.randint(1, 40), 96, 150])
    outputs = channels if residual else draw.randint(1, 20)
    height, width = draw.randint(1, 16), draw.choice([draw.randint(1, 16), 40])
    input = strided(draw, draw.choice([0, 1, 1, 2, 3]), channels, height, width)
    expands = draw.random() < 0.75
    hidden = hidden if expands else channels
    expand, project = torch.randn(hidden, channels), torch.randn(outputs, hidden)
    filters = torch.randn(hidden, 1, 3, 3)
    biases = [torch.randn(n) if draw.random() < 0.7 else None for n in (hidden, hidden, outputs)]
    biases[0] = biases[0] if expands else None

    weights = InvertedResidualWeights(
        packing.pack_linear(expand) if expands else None,
        biases[0],
        pack_depthwise(filters),
        biases[1],
        packing.pack_linear(project),
        biases[2],
    )
    actual = inverted_residual(input, weights, out_channels=outputs, stride=stride, residual=residual)
    exact, size = input.double(), input.double().abs()
    # What an error of a layer's inputs becomes in its outputs, and the rounding that comes on top.
    error = torch.zeros(())
    layers: list[tuple[Tensor, Tensor | None, dict[str, Any]]] = [
        (expand[..., None, None], biases[0], {}),
        (filters, biases[1], {"stride": stride, "padding": 1, "groups": hidden}),
        (project[..., None, None], biases[2], {}),
    ]
    for number, (weight, bias, steps) in enumerate(layers):
        if number == 0 and not expands:
            continue
        exact_bias = None if bias is None else bias.double()
        size = F.conv2d(
            exact.abs(), weight.double().abs(), None if exact_bias is None else exact_bias.abs(), **steps
        )
        spread = F.conv2d(error.expand(exact.shape).double(), weight.double().abs(), **steps)
        error = spread + ROUNDING * (4 + 2 * weight[0].numel() ** 0.5) * size
        exact = F.conv2d(exact, weight.double(), exact_bias, **steps)
        exact = exact if number == 2 else F.relu6(exact)
    if residual:
        exact, error = exact + input, error + ROUNDING * 2 * input.double().abs()
    assert actual.shape == exact.shape
    assert actual.is_contiguous(memory_format=torch.channels_last)
    within(actual, exact, error)


def within(actual: Tensor, exact: Tensor, tolerance: Tensor) -> None:
    excess = (actual - exact).abs() - tolerance
    assert (excess <= 0).all(), f"off by {excess.max().item():g} more than {tolerance}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
