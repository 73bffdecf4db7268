"""Rows of floating numbers as int8 with a scale for each."""

import triton
import triton.language as tl


@triton.jit
def rounded(x):
    """To the nearest integer, ties to even: past 1.5 * 2^23 a float32 has no fraction left."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def quantize(input, values, scale, K, BLOCK_K: tl.constexpr):
    """One row [K] per program, read twice: its largest magnitude becomes 127."""
    row = tl.program_id(0)
    first = row.to(tl.int64) * K
    depth = tl.arange(0, BLOCK_K)
    largest = tl.zeros((BLOCK_K,), tl.float32)
    spoilt = tl.zeros((BLOCK_K,), tl.float32)
    for begin in range(0, K, BLOCK_K):
        x = tl.load(input + first + begin + depth, mask=depth < K - begin, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(x))
        spoilt += tl.where(x == x, 0.0, 1.0)  # a maximum may pass a NaN by
    top = tl.max(largest, 0)
    top = tl.where(tl.sum(spoilt, 0) > 0.0, float("nan"), top)
    factor = tl.where(top == 0.0, 1.0, top / 127.0)
    tl.store(scale + row, factor)
    for begin in range(0, K, BLOCK_K):
        inside = depth < K - begin
        x = tl.load(input + first + begin + depth, mask=inside, other=0.0).to(tl.float32)
        x = tl.minimum(tl.maximum(rounded(x / factor), -127.0), 127.0)
        tl.store(values + first + begin + depth, x.to(tl.int8), mask=inside)
