"""``input [M, K] @ weight [N, K].T`` through pointers: any shape, one tile of one part of K per program."""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import store, write, write_halves


@triton.jit
def tile_at(index, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr):
    """Row and column of a tile; GROUP_M rows of tiles are walked together, so that L2 serves both inputs."""
    wide = tl.cdiv(N, BLOCK_N)
    first = index // (GROUP_M * wide) * GROUP_M
    high = min(tl.cdiv(M, BLOCK_M) - first, GROUP_M)
    within = index % (GROUP_M * wide)
    return first + within % high, within // high


@triton.jit
def gemm(
    input, weight, row_scale, column_scale, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, EVEN_K: tl.constexpr, PARTIAL: tl.constexpr, GROUP_M: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, SUBTILES: tl.constexpr,
):  # fmt: skip
    """The second axis of programs divides K. PARTIAL: bare sums [parts, M, N], for ``combine``.

    SUBTILES = 2 finishes a tile in two halves, which needs half the registers.
    """
    tile_m, tile_n = tile_at(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    # Rows past the end read row 0 again and are not stored: cheaper than a mask in the loop.
    left = input + (rows % M).to(tl.int64)[:, None] * K + depth[None, :]
    right = weight + (columns % N).to(tl.int64)[None, :] * K + depth[:, None]

    INTEGER: tl.constexpr = input.dtype.element_ty == tl.int8
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGER else tl.float32)
    steps = tl.cdiv(K, BLOCK_K)
    share = tl.cdiv(steps, tl.num_programs(1))
    first = tl.program_id(1) * share
    for step in range(first, min(first + share, steps)):
        k = step * BLOCK_K
        if EVEN_K:
            a = tl.load(left + k)
            b = tl.load(right + k)
        else:
            a = tl.load(left + k, mask=(depth < K - k)[None, :], other=0)
            b = tl.load(right + k, mask=(depth < K - k)[:, None], other=0)
        sums = tl.dot(a, b, sums, input_precision="ieee", out_dtype=sums.dtype)

    if PARTIAL:
        store(output + tl.program_id(1).to(tl.int64) * M * N, sums, rows, columns, M, N)
    elif SUBTILES == 1:
        write(sums, row_scale, column_scale, bias, residual, output, rows, columns, M, N, ACTIVATION)
    else:
        first = tile_n * BLOCK_N
        write_halves(sums, row_scale, column_scale, bias, residual, output, rows, first, M, N, ACTIVATION)
