"""Convolution as a product of matrices that never exist: NHWC, one row per output pixel."""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import write, write_halves
from leanmark_kernels.triton.device.gemm import tile_at


@triton.jit
def reaches(top, side, height, width, down, right):
    """Which pixels have an input ``down`` and ``right`` of their corner.

    Sizes are unsigned: a negative coordinate is a large one then, and one comparison does instead of two.
    """
    return ((top + down).to(tl.uint32) < height) & ((side + right).to(tl.uint32) < width)


@triton.jit
def conv2d(
    input, weight, bias, residual, output, M, N, HEIGHT, WIDTH, OUT_HEIGHT, OUT_WIDTH,
    ACTIVATION: tl.constexpr, C: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
    SUBTILES: tl.constexpr,
):  # fmt: skip
    """``input`` [batch, HEIGHT, WIDTH, C], ``weight`` [N, KERNEL_HEIGHT, KERNEL_WIDTH, C], ``output`` [M, N].

    M counts output pixels. One loop over taps and channels, so that loads are pipelined across taps; C is
    compiled in, since a step is divided by it to find its tap. SUBTILES = 2 finishes a tile in two halves.
    """
    TAPS: tl.constexpr = KERNEL_HEIGHT * KERNEL_WIDTH
    PARTS: tl.constexpr = (C + BLOCK_K - 1) // BLOCK_K
    EVEN_C: tl.constexpr = C % BLOCK_K == 0
    tile_m, tile_n = tile_at(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    pixel = rows % M
    top = pixel // OUT_WIDTH % OUT_HEIGHT * STRIDE - PADDING
    side = pixel % OUT_WIDTH * STRIDE - PADDING
    image = pixel // (OUT_WIDTH * OUT_HEIGHT)
    corner = ((image * HEIGHT + top).to(tl.int64) * WIDTH + side) * C
    channel = tl.arange(0, BLOCK_K)
    source = input + corner[:, None] + channel[None, :]
    filters = (columns % N).to(tl.int64) * (TAPS * C)
    kernel = weight + filters[None, :] + channel[:, None]
    height = tl.cast(HEIGHT, tl.uint32)
    width = tl.cast(WIDTH, tl.uint32)

    inside = tl.zeros((BLOCK_M,), tl.int32)
    if TAPS <= 32:  # a bit for each
        for i in tl.static_range(TAPS):
            bit = reaches(top, side, height, width, i // KERNEL_WIDTH * DILATION, i % KERNEL_WIDTH * DILATION)
            inside |= bit.to(tl.int32) << i

    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(TAPS * PARTS):
        tap = step // PARTS
        c = step % PARTS * BLOCK_K
        down = tap // KERNEL_WIDTH * DILATION
        right = tap % KERNEL_WIDTH * DILATION
        if TAPS <= 32:
            seen = ((inside >> tap) & 1 != 0)[:, None]
        else:
            seen = reaches(top, side, height, width, down, right)[:, None]
        a_at = source + ((down * WIDTH + right) * C + c)
        b_at = kernel + (tap * C + c)
        if EVEN_C:
            a = tl.load(a_at, mask=seen, other=0.0)
            b = tl.load(b_at)
        else:
            a = tl.load(a_at, mask=seen & (channel < C - c)[None, :], other=0.0)
            b = tl.load(b_at, mask=(channel < C - c)[:, None], other=0.0)
        sums = tl.dot(a, b, sums, input_precision="ieee")

    if SUBTILES == 1:
        write(sums, None, None, bias, residual, output, rows, columns, M, N, ACTIVATION)
    else:
        first = tile_n * BLOCK_N
        write_halves(sums, None, None, bias, residual, output, rows, first, M, N, ACTIVATION)
