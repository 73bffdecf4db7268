"""``input [M, K] @ weight [N, K].T`` where only some square blocks of the weight are stored."""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import write, write_halves
from leanmark_kernels.triton.device.gemm import tile_at


@triton.jit
def block_sparse(
    input, values, block_columns, offsets, order, bias, residual, output, M, N, K,
    ACTIVATION: tl.constexpr, BLOCK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """``values`` is [blocks, BLOCK, BLOCK]; row of blocks i has the blocks offsets[i] .. offsets[i + 1] - 1.

    ``order`` lists the rows of blocks, longest first: started last, a long row would run on alone.
    """
    tile_m, place = tile_at(tl.program_id(0), M, N, BLOCK_M, BLOCK, GROUP_M)
    line = tl.load(order + place)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    within = tl.arange(0, BLOCK)
    columns = line * BLOCK + within
    depth = tl.arange(0, BLOCK_K)
    left = input + (rows % M).to(tl.int64)[:, None] * K + depth[None, :]
    right = values + within[None, :] * BLOCK + depth[:, None]

    STEPS: tl.constexpr = BLOCK // BLOCK_K
    sums = tl.zeros((BLOCK_M, BLOCK), tl.float32)
    begin = tl.load(offsets + line)
    end = tl.load(offsets + line + 1)
    for step in range(begin * STEPS, end * STEPS):
        block = step // STEPS
        part = step % STEPS * BLOCK_K
        a = tl.load(left + tl.load(block_columns + block) * BLOCK + part)
        b = tl.load(right + block * (BLOCK * BLOCK) + part)
        sums = tl.dot(a, b, sums, input_precision="ieee")
    if HALVES:  # since the epilogue of the whole tile takes more registers than there are
        write_halves(sums, None, None, bias, residual, output, rows, line * BLOCK, M, N, ACTIVATION)
    else:
        write(sums, None, None, bias, residual, output, rows, columns, M, N, ACTIVATION)
