"""The Triton operators where Triton cannot run: registration, meaning, packing and mistakes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels import triton as gpu
from leanmark_kernels.triton import packing

pytestmark = pytest.mark.filterwarnings("ignore:leanmark_kernels runs its slower reference")


LAZY = """
import sys, warnings, torch
from leanmark_kernels import triton
imported = "triton" in sys.modules
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    for _ in range(2):
        triton.fused_linear(torch.ones(1, 2), torch.ones(3, 2))
print(imported, triton.available(), [str(each.message) for each in seen])
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_operators_do_not_need_triton_and_say_once_that_they_are_slow() -> None:
    command = [sys.executable, "-c", LAZY]
    said = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True).stdout
    assert said.startswith("False False ['leanmark_kernels runs its slower reference in plain torch: ")
    assert said.count("slower") == 1


@pytest.mark.parametrize(("bits", "steps"), [(8, 127), (4, 7)])
@pytest.mark.parametrize("group_size", [128, 256, 1024])
def test_packing_rounds_each_weight_to_the_grid_of_its_group(bits: int, steps: int, group_size: int) -> None:
    weight = torch.randn(5, 300, generator=torch.Generator().manual_seed(1))
    packed, scale = gpu.pack_weight_only(weight, bits, group_size)
    assert packed.shape == (3, 5, 16 * bits)
    assert scale.shape == ({128: 3, 256: 2, 1024: 1}[group_size], 5)
    error = (packing.unpack_weight_only(packed, scale, group_size, 300) - weight).abs()
    group = torch.arange(300) // group_size
    assert (error <= scale[group].T * 0.5001).all()
    largest = torch.stack([weight[:, group == each].abs().amax(1) for each in group.unique()])
    torch.testing.assert_close(scale, largest / steps)


def test_a_word_holds_neighbours_in_its_halves() -> None:
    weight = torch.zeros(1, 128)
    weight[0, 38], weight[0, 39], weight[0, 127] = 7.0, -5.0, -2.0
    packed, scale = gpu.pack_weight_only(weight, 4, 128)
    words = packed.view(torch.int32)[0, 0].tolist()
    assert scale.tolist() == [[1.0]]
    assert len(words) == 16
    assert words[3] & 0xFFFFFFFF == 0x883888F8  # 38 and 39: part 1, word 3
    assert words[15] & 0xFFFFFFFF == 0x68888888  # 127: part 3, word 15
    weight[0, 0], weight[0, 65] = 127.0, -128.0 + 1
    packed, scale = gpu.pack_weight_only(weight, 8, 128)
    words = packed.view(torch.int32)[0, 0].tolist()
    assert len(words) == 32
    assert words[0] & 0xFFFFFFFF == 0x018080FF  # 0, 64, 1, 65 from the lowest byte on, each 128 too large
    assert words[19] & 0xFFFFFFFF == 0x807B8087  # 38, 102, 39, 103


@pytest.mark.parametrize(
    ("dtype", "exponent", "worth"), [(torch.float16, 15, 2.0**-9), (torch.bfloat16, 127, 2.0**-6)]
)
@pytest.mark.parametrize(("place", "largest", "excess"), [(0, 15, 8), (4, 15, 8), (0, 255, 128)])
def test_integers_taken_for_tiny_numbers_are_exact(
    dtype: torch.dtype, exponent: int, worth: float, place: int, largest: int, excess: int
) -> None:
    """The arithmetic of ``pairs`` in device/weight_only.py, whose bfloat16 only a GPU can run."""
    stored = torch.arange(largest + 1, dtype=torch.int16)
    tiny = (stored << place).view(dtype)
    numbers = tiny * 2.0 ** (exponent - place) - excess * worth
    assert (numbers / worth).tolist() == [value - excess for value in stored.tolist()]


def test_blocks_keep_what_is_not_zero() -> None:
    weight = torch.zeros(192, 128)
    weight[0, 70], weight[130, 1], weight[191, 127] = 1.0, 2.0, 3.0
    blocks = gpu.pack_blocks(weight, 64)
    assert blocks.columns.tolist() == [1, 0, 1]
    assert blocks.offsets.tolist() == [0, 1, 1, 3]
    assert blocks.order.tolist() == [2, 0, 1]
    assert blocks.dense(128).equal(weight)


def test_known_values() -> None:
    input, weight = torch.tensor([[1.0, 2.0], [3.0, -4.0]]), torch.tensor([[1.0, 1.0], [0.5, -1.0]])
    residual = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    output = gpu.fused_linear(input, weight, torch.tensor([0.0, 2.0]), residual, activation="relu")
    assert output.tolist() == [[4.0, 1.5], [0.0, 8.5]]
    product = gpu.int8_linear(
        torch.tensor([[1, -2]], dtype=torch.int8),
        torch.tensor([[3, 4], [100, -128]], dtype=torch.int8),
        torch.tensor([0.5]),
        torch.tensor([2.0, 0.25]),
        torch.tensor([1.0, 0.0]),
        dtype=torch.float32,
    )
    assert product.tolist() == [[-4.0, 44.5]]


def test_convolutions_mean_what_torch_means() -> None:
    generator = torch.Generator().manual_seed(4)
    input = torch.randn(2, 6, 7, 5, generator=generator)
    weight, bias = torch.randn(4, 6, 3, 3, generator=generator), torch.randn(4, generator=generator)
    output = gpu.fused_conv2d(input, weight, bias, stride=2, padding=2, dilation=2, activation="silu")
    torch.testing.assert_close(output, F.silu(F.conv2d(input, weight, bias, 2, 2, 2)))
    weight = torch.randn(6, 1, 3, 3, generator=generator)
    output = gpu.depthwise_conv2d(input, weight, None, input, padding=1)
    torch.testing.assert_close(output, F.conv2d(input, weight, None, 1, 1, groups=6) + input)


X, W, B = torch.zeros(2, 3, 128), torch.zeros(64, 128), torch.zeros(64)
PACKED, SCALE = gpu.pack_weight_only(W + 1, 4, 128)
BLOCKS = gpu.pack_blocks(W + 1, 64)
IMAGE, KERNEL, TAPS = torch.zeros(1, 64, 5, 5), torch.zeros(64, 64, 3, 3), torch.zeros(64, 1, 3, 3)
CODES = X.to(torch.int8)
OPERATORS = torch.ops.leanmark_kernels


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        ("fused_linear", (X, W, B, None, "gelu")),
        ("int8_linear", (CODES, W.to(torch.int8), X[..., 0], B, None, None, "none", torch.bfloat16)),
        ("weight_only_linear", (X, PACKED, SCALE, B, X[..., :64], 128, "relu")),
        (
            "block_sparse_linear",
            (X, BLOCKS.values, BLOCKS.columns, BLOCKS.offsets, BLOCKS.order, B, None, "none"),
        ),
        ("quantize_activations", (X,)),
        ("fused_conv2d", (IMAGE, KERNEL, B, None, 2, 1, 1, "none")),
        ("depthwise_conv2d", (IMAGE, TAPS, B, IMAGE, 1, 1, 1, "relu")),
    ],
)
def test_registration_is_complete(operator: str, arguments: tuple[Any, ...]) -> None:
    torch.library.opcheck(getattr(OPERATORS, operator).default, arguments)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: gpu.fused_linear(x, W),
        lambda x: gpu.weight_only_linear(x, PACKED, SCALE, group_size=128),
        lambda x: gpu.block_sparse_linear(x, BLOCKS),
        lambda x: gpu.quantize_activations(x)[1],
        lambda x: gpu.int8_linear(
            CODES, W.to(torch.int8), X[..., 0], B, residual=x[..., :64], dtype=torch.float32
        ),
    ],
)
def test_backward_is_refused(call: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises((NotImplementedError, RuntimeError), match="has no gradient|autograd"):
        call(X.clone().requires_grad_()).sum().backward()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: gpu.fused_linear(X.double(), W),
            TypeError,
            "fused_linear: input is torch.float64; it must be",
        ),
        (
            lambda: gpu.fused_linear(X, W.half()),
            TypeError,
            "weight is torch.float16; it must be torch.float32",
        ),
        (lambda: gpu.fused_linear(X, W[0]), ValueError, r"weight is \[128\]; it must be \[N, K\]"),
        (
            lambda: gpu.fused_linear(X[..., 1:], W),
            ValueError,
            r"input is \[2, 3, 127\]; it must be \[\*, 128\]",
        ),
        (lambda: gpu.fused_linear(X, W, B[1:]), ValueError, r"bias is \[63\]; it must be \[64\] or None"),
        (
            lambda: gpu.fused_linear(X, W, B, X),
            ValueError,
            r"residual is \[2, 3, 128\]; it must be \[2, 3, 64\]",
        ),
        (
            lambda: gpu.fused_linear(X, W, activation="tanh"),
            ValueError,
            "activation is 'tanh'; it must be one of",
        ),
        (lambda: gpu.fused_linear(X, W.to("meta")), ValueError, "weight is on meta; it must be on cpu"),
        (lambda: gpu.int8_linear(X, W, B, B), TypeError, "input is torch.float32; it must be torch.int8"),
        (
            lambda: gpu.int8_linear(CODES, W.to(torch.int8), B, B),
            ValueError,
            r"input_scale is \[64\]; it must be \[2, 3\]",
        ),
        (
            lambda: gpu.int8_linear(*(torch.empty(1, 2**17, dtype=torch.int8),) * 2, B[:1], B[:1]),
            ValueError,
            "K is 131072; past 131071 sums overflow",
        ),
        (
            lambda: gpu.weight_only_linear(X, PACKED, SCALE, group_size=64),
            ValueError,
            "group_size is 64; it must be a positive multiple of 128",
        ),
        (
            lambda: gpu.weight_only_linear(X, PACKED.to(torch.int8), SCALE, group_size=128),
            ValueError,
            r"weight is torch.int8 \[1, 64, 64\]; it must be \[units, N, 128\]",
        ),
        (
            lambda: gpu.weight_only_linear(torch.zeros(1, 129), PACKED, SCALE, group_size=128),
            ValueError,
            r"input is \[1, 129\]; it must be \[\*, K\] with K from 1 to 128",
        ),
        (
            lambda: gpu.weight_only_linear(X, PACKED, SCALE.repeat(2, 1), group_size=128),
            ValueError,
            r"scale is \[2, 64\]; it must be \[1, 64\]",
        ),
        (
            lambda: gpu.weight_only_linear(X, PACKED, SCALE, B, X, group_size=128),
            ValueError,
            r"residual is \[2, 3, 128\]; it must be \[2, 3, 64\]",
        ),
        (lambda: gpu.block_sparse_linear(X[..., 1:], BLOCKS), ValueError, r"K a multiple of 64"),
        (
            lambda: gpu.block_sparse_linear(X, BLOCKS, B, X),
            ValueError,
            r"residual is \[2, 3, 128\]; it must be \[2, 3, 64\]",
        ),
        (lambda: gpu.fused_conv2d(IMAGE[0], KERNEL), ValueError, r"input is \[64, 5, 5\]; it must have 4"),
        (lambda: gpu.fused_conv2d(IMAGE, KERNEL[:, 1:]), ValueError, r"it must be \[N, 63, H, W\]"),
        (lambda: gpu.fused_conv2d(IMAGE, KERNEL, stride=0), ValueError, "stride is 0; it must be 1 or more"),
        (
            lambda: gpu.fused_conv2d(IMAGE, KERNEL, dilation=3),
            ValueError,
            r"smaller than the kernel of \[3, 3\]",
        ),
        (lambda: gpu.depthwise_conv2d(IMAGE, KERNEL), ValueError, r"it must be \[64, 1, R, S\]"),
        (lambda: gpu.pack_weight_only(W, 3, 128), ValueError, "bits is 3; it must be 4 or 8"),
        (lambda: gpu.pack_weight_only(W / 0, 4, 128), ValueError, "8192 of 8192 values that are NaN"),
        (lambda: gpu.pack_blocks(W, 32), ValueError, "size is 32; it must be 64 or 128"),
        (
            lambda: gpu.pack_blocks(W, 128),
            ValueError,
            r"\[64, 128\]; it must be \[N, K\], both multiples of 128",
        ),
    ],
)
def test_mistakes_are_explained(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_nan_passes_relu() -> None:
    input: Tensor = X.clone()
    input[0, 0, 0] = torch.nan
    output = gpu.fused_linear(input, W + 1, activation="relu")
    assert output[0, 0].isnan().all()
    assert output[1].count_nonzero() == 0
