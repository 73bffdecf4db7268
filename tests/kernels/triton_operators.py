"""Calls every public operator in Triton's interpreter and fails at the first that is wrong.

``TRITON_INTERPRET=1`` has to be set.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels import integer_packing
from leanmark_kernels import triton as gpu
from leanmark_kernels.triton import device_limits, packing, quantize, reference, tuning
from leanmark_kernels.triton.device.epilogue import activate
from leanmark_kernels.triton.device.weight_only import unpacked, worth

LIMITS = device_limits.on_paper((9, 0))


def main() -> None:
    assert gpu.available(), gpu.why_unavailable()
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(2)
    integers()
    activations()
    rows()
    linears()
    convolutions()
    empty()
    refused()
    print("all right")


@triton.jit  # type: ignore[untyped-decorator]
def unpack(words: Any, output: Any, bits: tl.constexpr, dtype: tl.constexpr) -> None:
    line, word, k = tl.arange(0, 16)[:, None], tl.arange(0, 4 * bits)[None, :], tl.arange(0, 128)[None, :]
    numbers = unpacked(tl.load(words + line * 4 * bits + word), bits, dtype)
    tl.store(output + line * 128 + k, numbers.to(tl.float32) * worth(dtype))


def integers() -> None:
    """Every stored weight becomes its number; of bfloat16 the interpreter cannot make constants."""
    for bits, largest in ((4, 7), (8, 127)):
        weight = (torch.arange(16 * 128).view(16, 128) % (2 * largest + 1) - largest).float()
        weight[:, 0] = largest
        packed, scale = gpu.pack_weight_only(weight, bits, 128)
        assert (scale == 1).all() and weight.unique().numel() == 2 * largest + 1
        for dtype in (tl.float16, tl.float32):
            output = torch.empty(16, 128)
            unpack[(1,)](packed.view(torch.int32), output, bits, dtype)
            assert output.equal(weight), (bits, dtype)


@triton.jit  # type: ignore[untyped-decorator]
def activated(input: Any, output: Any, name: tl.constexpr) -> None:
    at = tl.arange(0, 4096)
    tl.store(output + at, activate(tl.load(input + at), name))


def activations() -> None:
    """As exact as float32 is, beyond where they are flat too, and a NaN is not lost."""
    x = torch.linspace(-20, 20, 4096)
    x[:3], x[-2:] = torch.tensor([-1e30, -100.0, torch.nan]), torch.tensor([1e30, torch.inf])
    output = torch.empty_like(x)
    for name, function in (("relu", F.relu), ("relu6", F.relu6), ("gelu", F.gelu), ("silu", F.silu)):
        activated[(1,)](x, output, name)
        exact = function(x.double())
        torch.testing.assert_close(output.double(), exact, rtol=4e-7, atol=1.2e-7, equal_nan=True)
        assert output[:2].abs().max() < 1e-30, name


def rows() -> None:
    """Every configuration gives the integers of the reference, and a NaN is not lost."""
    for dtype in (torch.float16, torch.float32):
        for shape in ((3, 5), (2, 3, 1025), (2, 5000), (2, 0), (0, 7)):
            input = torch.randn(shape).to(dtype)
            input[:1] = 0
            values, scale = gpu.quantize_activations(input)
            assert values.shape == shape and scale.shape == shape[:-1]
            for found, expected in zip((values, scale), reference.quantize_activations(input), strict=True):
                assert found.equal(expected), (dtype, shape)
            for config in quantize.KERNEL.space if input.numel() else ():
                flat = input.flatten(0, -2)
                problem = quantize.Problem(
                    flat, torch.empty_like(flat, dtype=torch.int8), torch.empty(len(flat))
                )
                tuning.run(quantize.KERNEL.launches(problem, config, LIMITS))
                assert problem.values.equal(values.flatten(0, -2)), (dtype, shape, config)
    input = torch.ones(2, 8)
    input[0, 3], input[1, 0] = torch.nan, -254.0
    values, scale = gpu.quantize_activations(input)
    assert scale[0].isnan() and scale[1] == 2 and values[1].tolist() == [-127] + [0] * 7  # 0.5 is a tie


def expect(actual: Tensor, expected: Tensor) -> None:
    """Float16 rounds to 2^-11 of each element; float32 sums are finer than that by far."""
    torch.testing.assert_close(actual.double(), expected, rtol=2.0**-10, atol=2e-3)


def linears() -> None:
    input = torch.randn(2, 3, 256).half()[:, ::2]
    weight, bias, residual = torch.randn(70, 256) / 16, torch.randn(70).half(), torch.randn(2, 2, 70).half()
    x, w = input.double(), weight.double()

    dense = gpu.fused_linear(input, weight.half(), bias, residual, activation="gelu")
    expect(dense, F.gelu(F.linear(x, weight.half().double(), bias.double()) + residual.double()))

    packed, scale = gpu.pack_weight_only(weight, 4, 128)
    stored = packing.unpack_weight_only(packed, scale, 128, 256).double()
    few = gpu.weight_only_linear(input, packed, scale, bias, group_size=128, activation="silu")
    expect(few, F.silu(F.linear(x, stored, bias.double())))

    integers, input_scale = integer_packing.quantize_channels(input.float().flatten(0, 1))
    weights, weight_scale = integer_packing.quantize_channels(weight)
    product = gpu.int8_linear(
        integers.view(2, 2, -1), weights, input_scale.view(2, 2), weight_scale, dtype=torch.float32
    )
    rounded = integers.double() * input_scale[:, None].double()
    expect(product, (rounded @ (weights.double() * weight_scale[:, None].double()).T).view(2, 2, -1))
    assert (product - F.linear(x, w)).abs().max() < 0.1

    blocks = torch.randn(128, 256).half() / 16
    blocks[:64, 64:192] = 0
    expect(gpu.block_sparse_linear(input, gpu.pack_blocks(blocks, 64)), F.linear(x, blocks.double()))
    torch.library.opcheck(
        torch.ops.leanmark_kernels.fused_linear.default, (input, weight.half(), bias, None, "relu")
    )


def convolutions() -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        input = torch.randn(2, 33, 8, 9).half().contiguous(memory_format=layout)
        bias = torch.randn(33).half()
        for kernel, padding in ((3, 1), (1, 0)):
            weight = (torch.randn(33, 33, kernel, kernel) / 16).half().contiguous(memory_format=layout)
            output = gpu.fused_conv2d(input, weight, bias, input, padding=padding, activation="relu")
            assert output.is_contiguous(memory_format=torch.channels_last)
            exact = F.conv2d(input.double(), weight.double(), bias.double(), padding=padding)
            expect(output, (exact + input.double()).relu())
        weight = torch.randn(33, 1, 3, 3).half() / 3
        output = gpu.depthwise_conv2d(input, weight, bias, stride=2, padding=1)
        assert output.is_contiguous(memory_format=torch.channels_last)
        expect(output, F.conv2d(input.double(), weight.double(), bias.double(), 2, 1, groups=33))


def empty() -> None:
    """No rows, and no products."""
    weight = torch.randn(5, 16).half()
    assert gpu.fused_linear(torch.zeros(0, 16).half(), weight).shape == (0, 5)
    nothing = gpu.fused_linear(torch.zeros(3, 0).half(), weight[:, :0], torch.arange(5).half())
    assert nothing.tolist() == [[0, 1, 2, 3, 4]] * 3
    hollow = gpu.pack_blocks(torch.zeros(64, 128).half(), 64)
    assert gpu.block_sparse_linear(torch.ones(2, 128).half(), hollow).tolist() == [[0] * 64] * 2


def refused() -> None:
    """The interpreter multiplies bfloat16 wrongly, so it is not asked to."""
    try:
        gpu.fused_linear(torch.zeros(1, 16).bfloat16(), torch.zeros(5, 16).bfloat16())
    except TypeError as error:
        assert "Triton's interpreter gets wrong" in str(error)
    else:
        raise AssertionError("bfloat16 was accepted")


if __name__ == "__main__":
    main()
