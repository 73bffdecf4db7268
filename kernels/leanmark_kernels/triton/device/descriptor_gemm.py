"""``input [M, K] @ weight [N, K].T`` through tensor descriptors (TMA), for Hopper and later.

Persistent: as many programs as run side by side, each walking over tiles, so that the loads of the next tile
run during the epilogue of this one. The copy engine fills what lies outside a tensor with zeros.
"""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import dequantize, finish, halves
from leanmark_kernels.triton.device.gemm import tile_at


@triton.jit
def descriptor_gemm(
    input, weight, row_scale, column_scale, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr, SUBTILES: tl.constexpr,
):  # fmt: skip
    """``input``, ``weight`` and ``output`` are descriptors; SUBTILES = 2 stores a tile in two halves.

    Halves need half the shared memory for the store, which leaves room for one more stage of loads.
    """
    INTEGER: tl.constexpr = input.dtype == tl.int8
    WIDTH: tl.constexpr = BLOCK_N // SUBTILES
    tiles = tl.cdiv(M, BLOCK_M) * tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(K, BLOCK_K)
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
        tile_m, tile_n = tile_at(tile, M, N, BLOCK_M, BLOCK_N, GROUP_M)
        m = tile_m * BLOCK_M
        n = tile_n * BLOCK_N
        sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32 if INTEGER else tl.float32)
        for step in range(steps):
            a = input.load([m, step * BLOCK_K])
            b = weight.load([n, step * BLOCK_K])
            sums = tl.dot(a, b.T, sums, out_dtype=sums.dtype)

        rows = m + tl.arange(0, BLOCK_M)
        if SUBTILES == 1:
            columns = n + tl.arange(0, BLOCK_N)
            x = dequantize(sums, row_scale, column_scale, rows, columns, M, N)
            x = finish(x, bias, residual, rows, columns, M, N, ACTIVATION)
            output.store([m, n], x.to(output.dtype))
        else:
            low, high = halves(sums)
            columns = n + tl.arange(0, WIDTH)
            x = dequantize(low, row_scale, column_scale, rows, columns, M, N)
            x = finish(x, bias, residual, rows, columns, M, N, ACTIVATION)
            output.store([m, n], x.to(output.dtype))
            columns += WIDTH
            x = dequantize(high, row_scale, column_scale, rows, columns, M, N)
            x = finish(x, bias, residual, rows, columns, M, N, ACTIVATION)
            output.store([m, n + WIDTH], x.to(output.dtype))
