"""Runs integer operators on random shapes and fails at the first wrong output: ``integer_shapes.py COUNT``.

A program, so that tests can run it under any instruction set and under a sanitizer. All memory that torch
hands out is poisoned first, with NaN or the largest integer: an output that is not written, and scratch
memory that is read before it is written, shows.
"""

from __future__ import annotations

import random
import sys

import torch
from torch import Tensor

import leanmark_kernels
from leanmark_kernels import (
    int8_conv2d,
    int8_dynamic_linear,
    int8_linear,
    int8_winograd_conv2d,
    quantize_int8,
    w4a8_linear,
)
from leanmark_kernels import integer_packing as packing
from leanmark_kernels import integer_reference as reference
from leanmark_kernels.ops.int8_conv2d import Geometry

ROUNDING = 2.0**-24


def main(count: int) -> None:
    torch.use_deterministic_algorithms(True)
    assert torch.empty(100).isnan().all(), "memory is not poisoned"
    checks = [check_w4a8, check_linear, check_winograd, check_direct]
    for seed in range(count):
        torch.manual_seed(seed)
        torch.set_num_threads(1 + seed // 4 % 3)
        checks[seed % 4](random.Random(seed))
    print(leanmark_kernels.instruction_set(), count)


def check_w4a8(draw: random.Random) -> None:
    group = draw.choice([32, 32, 64, 96, 128])
    groups = draw.choice([0, 1, 1, 2, 3, draw.randint(4, 12)])
    rows, columns = sizes(draw)
    input = torch.randn(rows, group * groups) * 10.0 ** draw.randint(-3, 3)
    if draw.random() < 0.3:
        input = input.repeat(1, 2)[:, : group * groups]
    input[torch.rand(input.shape) < draw.choice([0, 0.9])] = 0
    weight = torch.randn(columns, group * groups)
    integers = packing.quantize_int4(weight, group=group, zero_points=draw.random() < 0.4)
    if draw.random() < 0.2:  # the extremes: all products of one sign
        integers = integers._replace(values=torch.full_like(integers.values, draw.choice([0, 15])))
        input = input.abs().fill_(draw.choice([-3.0, 5.0]))
    packed, bias, relu = packing.pack_int4(integers), optional(draw, columns), draw.random() < 0.5

    actual = w4a8_linear(input, *packed, bias, out_features=columns, relu=relu)
    expected = reference.w4a8_linear(input, *packed, bias, columns, relu)
    bound = packing.pack_int4(largest(integers))
    size = reference.w4a8_linear(input.abs(), *bound, None, columns, False).abs()
    size = (2 if packed.zero is not None else 1) * size + (0 if bias is None else bias.abs())
    # Every 32 values are added to a sum, and so is what their zero points take off.
    tolerance = ROUNDING * (4 + 2 * group * groups / 32) * size
    assert actual.shape == (rows, columns)
    excess = (actual - expected).abs() - tolerance
    assert (excess <= 0).all(), f"off by {excess.max().item():g} more than the tolerance"


def largest(integers: packing.Int4Weight) -> packing.Int4Weight:
    """Weights as large as any of the same scales can be, for a bound of the sums."""
    return packing.Int4Weight(torch.zeros_like(integers.values), integers.scale.abs(), None)


def check_linear(draw: random.Random) -> None:
    rows, columns = sizes(draw)
    depth = draw.choice([0, 1, 2, draw.randint(3, 70), draw.randint(100, 300), 1024])
    dtype, span = draw.choice([torch.int8, torch.uint8]), draw.choice([256, 128, 40, 1])
    low = {torch.int8: -128, torch.uint8: 0}[dtype] + draw.choice([0, 256 - span])
    input = torch.randint(low, low + span, (rows, 2 * depth), dtype=dtype)
    input = input[:, ::2] if draw.random() < 0.3 else input[:, :depth].contiguous()
    most = draw.choice([128, 128, 64, 20])
    weight = torch.randint(-most, most, (columns, depth), dtype=torch.int8)
    if draw.random() < 0.3:  # what saturates in 16 bits
        weight.fill_(draw.choice([-128, 127]))
        input = torch.full_like(input, low + span - 1)
    packed = packing.pack_int8_linear(weight)
    assert packing.unpack_int8_linear(packed, columns, depth).equal(weight)
    zero_point = draw.choice([0, low, low + span - 1])
    scale, input_scale = torch.rand(columns), torch.rand(draw.choice([1, rows]))
    bias, relu = optional(draw, columns), draw.random() < 0.5
    actual = int8_linear(
        packing.Quantized(input, input_scale, zero_point),
        packing.PackedInt8(packed, scale),
        bias,
        out_features=columns,
        relu=relu,
    )
    others = (packed, scale, input_scale, zero_point, bias, columns, relu)
    assert actual.equal(reference.int8_linear(input, *others))

    floats, bits = draw_floats(draw, input), draw.choice([7, 8])
    rounded, expected = quantize_int8(floats, bits=bits), reference.quantize_int8(floats, bits)
    assert rounded.values.equal(expected[0])
    assert_same(rounded.scale, expected[1])
    whole = packing.PackedInt8(packed, scale)
    actual = int8_dynamic_linear(floats, whole, bias, out_features=columns, bits=bits, relu=relu)
    assert_same(actual, reference.int8_dynamic_linear(floats, packed, scale, bias, bits, columns, relu))


def check_winograd(draw: random.Random) -> None:
    padding, relu = draw.choice([0, 1, 1, 2]), draw.random() < 0.5
    channels, filters = (draw.choice([draw.randint(1, 20), 16, 64, 70, 140]) for _ in range(2))
    batch = draw.choice([0, 1, 1, 2, 5])
    height, width = (max(3 - 2 * padding, draw.randint(1, 15)) for _ in "hw")
    dtype = draw.choice([torch.int8, torch.uint8])
    low = {torch.int8: -128, torch.uint8: 0}[dtype]
    input = torch.randint(low, low + 256, (batch, channels, height, width), dtype=dtype)
    weight = torch.randint(-128, 128, (filters, channels, 3, 3), dtype=torch.int8)
    if draw.random() < 0.2:
        input.fill_(draw.choice([low, low + 255]))
        weight.fill_(-128)
    if draw.random() < 0.6:
        input = input.contiguous(memory_format=torch.channels_last)
    packed = packing.pack_int8_winograd(weight)
    assert packing.unpack_int8_winograd(packed, filters, channels).equal(weight)
    shape = batch, filters, height + 2 * padding - 2, width + 2 * padding - 2
    residual = torch.randn(shape) if draw.random() < 0.3 else None
    scale, input_scale = torch.rand(filters), torch.rand(draw.choice([1, batch]))
    zero_point = draw.choice([0, low, low + 255, low + 100])
    bias = optional(draw, filters)
    actual = int8_winograd_conv2d(
        packing.Quantized(input, input_scale, zero_point),
        packing.PackedInt8(packed, scale),
        bias,
        residual,
        out_channels=filters,
        padding=padding,
        relu=relu,
    )
    assert actual.shape == shape
    assert actual.is_contiguous(memory_format=torch.channels_last)
    others = (packed, scale, input_scale, zero_point, bias, residual, filters, padding, relu)
    assert actual.equal(reference.int8_winograd_conv2d(input, *others))

    floats, whole = draw_floats(draw, input), packing.PackedInt8(packed, scale)
    actual = int8_winograd_conv2d(
        floats, whole, bias, residual, out_channels=filters, padding=padding, relu=relu
    )
    unscaled = (packed, scale, None, 0, bias, residual, filters, padding, relu)
    assert_same(actual, reference.int8_winograd_conv2d(floats, *unscaled))


def check_direct(draw: random.Random) -> None:
    groups = draw.choice([1, 1, 1, 2, 3])
    channels, filters = (groups * draw.choice([draw.randint(1, 20), 16, 33]) for _ in range(2))
    kernel, stride = ((draw.choice(sides), draw.choice(sides)) for sides in ((1, 2, 3, 3, 5), (1, 1, 2, 3)))
    geometry = Geometry(
        kernel,
        stride,
        padding=(draw.randint(0, 3), draw.randint(0, 3)),
        dilation=(draw.choice([1, 1, 2]), draw.choice([1, 1, 3])),
    )
    if draw.random() < 0.2:
        geometry = Geometry((1, 1))
    reach = [
        step * (size - 1) + 1 for step, size in zip(geometry.dilation, geometry.kernel_size, strict=True)
    ]
    height, width = (
        max(1, reach[axis] - 2 * geometry.padding[axis], draw.randint(1, 15)) for axis in range(2)
    )
    batch, dtype = draw.choice([0, 1, 1, 2, 3]), draw.choice([torch.int8, torch.uint8])
    low = {torch.int8: -128, torch.uint8: 0}[dtype]
    input = torch.randint(low, low + 256, (batch, channels, height, width), dtype=dtype)
    depth = channels // groups * geometry.kernel_size[0] * geometry.kernel_size[1]
    weight = torch.randint(-128, 128, (groups, filters // groups, depth), dtype=torch.int8)
    if draw.random() < 0.2:
        input.fill_(draw.choice([low, low + 255]))
        weight.fill_(-128)
    if draw.random() < 0.6:
        input = input.contiguous(memory_format=torch.channels_last)
    packed = torch.stack([packing.pack_int8_linear(each) for each in weight])
    scale, input_scale = torch.rand(filters), torch.rand(draw.choice([1, batch]))
    zero_point, bias = draw.choice([0, low, low + 255, low + 100]), optional(draw, filters)
    relu = draw.random() < 0.5
    actual = int8_conv2d(
        packing.Quantized(input, input_scale, zero_point),
        packing.PackedInt8(packed, scale),
        bias,
        geometry=geometry,
        relu=relu,
    )
    assert actual.is_contiguous(memory_format=torch.channels_last)
    others = (packed, scale, input_scale, zero_point, bias, geometry.window(), relu)
    assert actual.equal(reference.int8_conv2d(input, *others))

    floats = draw_floats(draw, input)
    actual = int8_conv2d(floats, packing.PackedInt8(packed, scale), bias, geometry=geometry, relu=relu)
    unscaled = (packed, scale, None, 0, bias, geometry.window(), relu)
    assert_same(actual, reference.int8_conv2d(floats, *unscaled))


def draw_floats(draw: random.Random, like: Tensor) -> Tensor:
    """Of the shape and layout of ``like``, at times with one number that is not finite."""
    floats = torch.randn_like(like, dtype=torch.float32)
    if draw.random() < 0.2 and floats.numel():
        at = [draw.randrange(size) for size in floats.shape]
        floats[*at] = draw.choice([torch.nan, torch.inf])
    return floats


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """NaN included."""
    assert actual.nan_to_num(12345.0).equal(expected.nan_to_num(12345.0))


def sizes(draw: random.Random) -> tuple[int, int]:
    """Rows and columns."""
    rows = draw.choice([0, 1, 2, 3, 4, 5, 7, 8, 16, 33])
    return rows, draw.choice([0, 1, draw.randint(2, 40), 64, draw.randint(100, 300)])


def optional(draw: random.Random, length: int) -> Tensor | None:
    return torch.randn(length) if draw.random() < 0.7 else None


if __name__ == "__main__":
    main(int(sys.argv[1]))
