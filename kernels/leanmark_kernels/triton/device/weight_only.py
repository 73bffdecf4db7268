"""Linear layers that read 8- or 4-bit weights and multiply in the input's dtype, for few rows.

Weights lie in units of 128 along K, [units, N, bytes of a unit], so that the tile of a program is one piece
of memory. In a unit of 4-bit weights, byte j holds k = j in its low and k = 64 + j in its high half: the two
halves meet two contiguous pieces of the input, and nothing is interleaved. Values are small integers, exact
in every input dtype; the scale of a group is applied to the float32 sum over that group.
"""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import finish, store

UNIT = tl.constexpr(128)
HALF = tl.constexpr(64)


@triton.jit
def signed(nibbles, dtype: tl.constexpr):
    """0..15, which stand for -8..7, as floating numbers.

    In 16 bits the number is written into the mantissa of 1024 (128 for bfloat16) and the excess subtracted:
    both are exact, and much cheaper than a conversion from integer.
    """
    if dtype == tl.float16:
        return (nibbles.to(tl.int16) | 0x6400).to(tl.float16, bitcast=True) - 1032.0
    elif dtype == tl.bfloat16:
        return (nibbles.to(tl.int16) | 0x4300).to(tl.bfloat16, bitcast=True) - 136.0
    else:
        return nibbles.to(dtype) - 8.0


@triton.jit
def signed_halves(packed):
    """The low and the high half of each byte, which stand for -8..7, in float32.

    As in ``signed``, in the mantissa of 2^23; the high half stays where it is and is worth 16 times as much.
    """
    word = packed.to(tl.int32)
    low = ((word & 15) | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0
    high = ((word & 240) | 0x4B000000).to(tl.float32, bitcast=True) * 0.0625 - 524296.0
    return low, high


@triton.jit
def unit_product(left, weight, unit, at, K, EVEN_K: tl.constexpr, BITS: tl.constexpr):
    """The products [BLOCK_M, BLOCK_N] over one unit, not yet scaled.

    ``left`` points to the rows of the input, ``weight`` to the unit's tile, ``at`` is 0..63.
    """
    dtype: tl.constexpr = left.dtype.element_ty
    rest = K - unit * UNIT
    if EVEN_K:
        low = tl.load(left + unit * UNIT + at[None, :])
        high = tl.load(left + unit * UNIT + HALF + at[None, :])
    else:
        low = tl.load(left + unit * UNIT + at[None, :], mask=(at < rest)[None, :], other=0.0)
        high = tl.load(left + unit * UNIT + HALF + at[None, :], mask=(at < rest - HALF)[None, :], other=0.0)
    if BITS == 4:
        packed = tl.load(weight + at[:, None], eviction_policy="evict_first")
        first = signed(packed & 15, dtype)
        second = signed(packed >> 4, dtype)
    else:
        first = tl.load(weight + at[:, None], eviction_policy="evict_first").to(dtype)
        second = tl.load(weight + HALF + at[:, None], eviction_policy="evict_first").to(dtype)
    product = tl.dot(low, first, input_precision="ieee")
    return tl.dot(high, second, product, input_precision="ieee")


@triton.jit
def weight_only(
    input, weight, scale, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, EVEN_K: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    PARTIAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """GROUP counts units; ``scale`` is [groups, N]; the second axis and PARTIAL are as in ``gemm``."""
    tile_m = tl.program_id(2)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = columns % N
    at = tl.arange(0, HALF)
    BYTES: tl.constexpr = UNIT * BITS // 8
    left = input + (rows % M).to(tl.int64)[:, None] * K

    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    units = tl.cdiv(K, UNIT)
    share = tl.cdiv(units, tl.num_programs(1))
    begin = tl.program_id(1) * share
    for unit in range(begin, min(begin + share, units)):
        tile = weight + (unit * N + column).to(tl.int64)[None, :] * BYTES
        product = unit_product(left, tile, unit, at, K, EVEN_K, BITS)
        factor = tl.load(scale + unit // GROUP * N + column)
        sums += product * factor.to(tl.float32)[None, :]

    if PARTIAL:
        store(output + tl.program_id(1).to(tl.int64) * M * N, sums, rows, columns, M, N)
    else:
        store(output, finish(sums, bias, residual, rows, columns, M, N, ACTIVATION), rows, columns, M, N)


@triton.jit
def weight_only_row(
    input, weight, scale, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, BITS: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr, UNITS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """One row of the input per program, without tensor cores: UNITS units of BLOCK_N columns at a time."""
    rows = tl.program_id(1) + tl.arange(0, 1)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = (columns % N)[None, :, None]
    at = tl.arange(0, HALF)[None, None, :]
    BYTES: tl.constexpr = UNIT * BITS // 8
    row = input + tl.program_id(1).to(tl.int64) * K

    sums = tl.zeros((UNITS, BLOCK_N, HALF), tl.float32)
    units = tl.cdiv(K, UNIT)
    for begin in tl.range(0, units, UNITS, num_stages=STAGES):
        unit = begin + tl.arange(0, UNITS)[:, None, None]
        k = unit * UNIT + at
        low = tl.load(row + k, mask=k < K, other=0.0).to(tl.float32)
        high = tl.load(row + k + HALF, mask=k + HALF < K, other=0.0).to(tl.float32)
        tile = weight + (unit * N + column).to(tl.int64) * BYTES + at
        if BITS == 4:
            packed = tl.load(tile, mask=unit < units, other=0, eviction_policy="evict_first")
            first, second = signed_halves(packed)
        else:
            first = tl.load(tile, mask=unit < units, other=0, eviction_policy="evict_first").to(tl.float32)
            second = tl.load(tile + HALF, mask=unit < units, other=0, eviction_policy="evict_first").to(
                tl.float32
            )
        factor = tl.load(scale + unit // GROUP * N + column, mask=unit < units, other=0.0)
        sums += (low * first + high * second) * factor.to(tl.float32)

    total = tl.sum(tl.sum(sums, 2), 0)[None, :]
    store(output, finish(total, bias, residual, rows, columns, M, N, ACTIVATION), rows, columns, M, N)
