"""Linear layers that read 8- or 4-bit weights and multiply in the input's dtype, for few rows.

Weights lie in units of 128 along K, [units, N, words of a unit], so that the tile of a program is one piece
of memory. The products are those of the transposed layer, ``w @ input.T``: weights go from registers, where
they become floating numbers, straight to the tensor cores, and few rows waste little of them. Values are
small integers, exact in every input dtype; a group's scale is applied to the float32 sum over that group.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents

from leanmark_kernels.triton.device.epilogue import finish, store

UNIT = tl.constexpr(128)


@triton.jit
def pairs(words, AT: tl.constexpr, BITS: tl.constexpr, dtype: tl.constexpr):
    """The integers in bits AT and AT + 16 of each word, less what they are too large by: [..., 2].

    In 16 bits they are taken for floating numbers as they are, which makes them tiny, subnormal ones: one
    masking and one multiply-add turn two of them into numbers that are too small by ``worth`` alone.
    """
    MASK: tl.constexpr = 15 if BITS == 4 else 255
    EXCESS: tl.constexpr = 8 if BITS == 4 else 128
    if dtype == tl.float32:
        return tl.join((words >> AT) & MASK, (words >> (AT + 16)) & MASK).to(dtype) - EXCESS
    else:
        both = words & (MASK * 65537 << AT)
        tiny = tl.join(both.to(tl.int16), (both >> 16).to(tl.int16)).to(dtype, bitcast=True)
        LARGE: tl.constexpr = 2.0 ** ((127 if dtype == tl.bfloat16 else 15) - AT)
        LESS: tl.constexpr = -EXCESS / (64.0 if dtype == tl.bfloat16 else 512.0)
        return tl.fma(tiny, tl.full(tiny.shape, LARGE, dtype), tl.full(tiny.shape, LESS, dtype))


@triton.jit
def worth(dtype: tl.constexpr):
    """By what the numbers of ``pairs`` are too small: 2^(133 - 127) or 2^(24 - 15)."""
    return 64.0 if dtype == tl.bfloat16 else 512.0 if dtype == tl.float16 else 1.0


@triton.jit
def unpacked(words, BITS: tl.constexpr, dtype: tl.constexpr):
    """The numbers [N, 128] of units [N, words], in the order of K; see ``packing.pack_weight_only``.

    Both numbers of a pair stay in one register and are neighbours along K, as the tensor cores want them.
    """
    if BITS == 8:
        numbers = tl.join(pairs(words, 0, 8, dtype), pairs(words >> 8, 0, 8, dtype))
        ordered = tl.permute(numbers, 0, 3, 1, 2)
    else:
        # Shifted by 8 at most: were the uppermost bits brought to place 0, the compiler would drop their
        # mask and take words apart.
        even = tl.join(pairs(words, 0, 4, dtype), pairs(words >> 8, 0, 4, dtype))
        odd = tl.join(pairs(words, 4, 4, dtype), pairs(words >> 8, 4, 4, dtype))
        ordered = tl.permute(tl.join(even, odd), 0, 3, 4, 1, 2)
    return tl.reshape(ordered, words.shape[0], UNIT)


@triton.jit
def weight_only(
    input, weight, scale, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, EVEN_K: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    PARTIAL: tl.constexpr, FOLLOWED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """GROUP counts units; ``scale`` is [groups, N]; the second axis and PARTIAL are as in ``gemm``.

    FOLLOWED: the launch behind may take its place already, since it waits for the end of this one.
    """
    if FOLLOWED:
        gdc_launch_dependents()
    dtype: tl.constexpr = input.dtype.element_ty
    WORDS: tl.constexpr = UNIT * BITS // 32
    rows = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = columns % N
    depth = tl.arange(0, UNIT)
    within = tl.arange(0, WORDS)
    left = input + rows.to(tl.int64)[:, None] * K + depth[None, :]
    exists = (rows < M)[:, None]

    sums = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    units = tl.cdiv(K, UNIT)
    share = tl.cdiv(units, tl.num_programs(1))
    begin = tl.program_id(1) * share
    # The number of stages stands here, since only then are the scales loaded ahead, too.
    for unit in tl.range(begin, min(begin + share, units), num_stages=STAGES):
        tile = weight + (unit * N + column).to(tl.int64)[:, None] * WORDS + within[None, :]
        words = tl.load(tile, eviction_policy="evict_first")
        if EVEN_K:
            x = tl.load(left + unit * UNIT, mask=exists, other=0.0)
        else:
            x = tl.load(left + unit * UNIT, mask=exists & (depth < K - unit * UNIT)[None, :], other=0.0)
        factor = tl.load(scale + unit // GROUP * N + column)
        product = tl.dot(unpacked(words, BITS, dtype), tl.trans(x), input_precision="ieee")
        sums += product * factor[:, None]

    total = tl.trans(sums) * worth(dtype)
    if PARTIAL:
        store(output + tl.program_id(1).to(tl.int64) * M * N, total, rows, columns, M, N)
    else:
        store(output, finish(total, bias, residual, rows, columns, M, N, ACTIVATION), rows, columns, M, N)


@triton.jit
def weight_only_few(
    input, weight, scale, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UNITS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """All of K in one program, UNITS units at a time, each the business of one warp: nothing to combine."""
    dtype: tl.constexpr = input.dtype.element_ty
    WORDS: tl.constexpr = UNIT * BITS // 32
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = columns % N
    part = tl.arange(0, UNITS)
    depth = part[:, None, None] * UNIT + tl.arange(0, UNIT)[None, None, :]
    left = input + rows.to(tl.int64)[None, :, None] * K + depth
    right = weight + (part[:, None] * N + column[None, :]).to(tl.int64)[:, :, None] * WORDS
    right += tl.arange(0, WORDS)[None, None, :]
    exists = (rows < M)[None, :, None]

    sums = tl.zeros((UNITS, BLOCK_N, BLOCK_M), tl.float32)
    units = tl.cdiv(K, UNIT)
    for begin in tl.range(0, units, UNITS, num_stages=STAGES):
        inside = begin + part < units
        tile = right + (begin * N).to(tl.int64) * WORDS
        words = tl.load(tile, mask=inside[:, None, None], other=0, eviction_policy="evict_first")
        x = tl.load(left + begin * UNIT, mask=exists & (depth < K - begin * UNIT), other=0.0)
        group = (begin + part)[:, None] // GROUP
        factor = tl.load(scale + group * N + column[None, :], mask=inside[:, None], other=0.0)
        numbers = unpacked(tl.reshape(words, UNITS * BLOCK_N, WORDS), BITS, dtype)
        numbers = tl.reshape(numbers, UNITS, BLOCK_N, UNIT)
        product = tl.dot(numbers, tl.permute(x, 0, 2, 1), input_precision="ieee")
        sums += product * factor[:, :, None]

    total = tl.trans(tl.sum(sums, 0)) * worth(dtype)
    store(output, finish(total, bias, residual, rows, columns, M, N, ACTIVATION), rows, columns, M, N)
