"""Convolution as a product of matrices that never exist: NHWC, one row per output pixel."""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import finish, store
from leanmark_kernels.triton.device.gemm import tile_at


@triton.jit
def conv2d(
    input, weight, bias, residual, output, M, N, HEIGHT, WIDTH, C, OUT_HEIGHT, OUT_WIDTH,
    ACTIVATION: tl.constexpr, EVEN_C: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """``input`` [batch, HEIGHT, WIDTH, C], ``weight`` [N, KERNEL_HEIGHT, KERNEL_WIDTH, C], ``output`` [M, N].

    M counts output pixels. One loop over taps and channels, so that loads are pipelined across taps.
    """
    tile_m, tile_n = tile_at(tl.program_id(0), M, N, BLOCK_M, BLOCK_N, GROUP_M)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    pixel = rows % M
    top = pixel // OUT_WIDTH % OUT_HEIGHT * STRIDE - PADDING
    side = pixel % OUT_WIDTH * STRIDE - PADDING
    image = pixel // (OUT_WIDTH * OUT_HEIGHT)
    corner = ((image * HEIGHT + top).to(tl.int64) * WIDTH + side) * C
    channel = tl.arange(0, BLOCK_K)
    filters = (columns % N).to(tl.int64)[None, :] * (KERNEL_HEIGHT * KERNEL_WIDTH * C)

    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    parts = tl.cdiv(C, BLOCK_K)
    for step in range(KERNEL_HEIGHT * KERNEL_WIDTH * parts):
        tap = step // parts
        c = step % parts * BLOCK_K + channel
        down = tap // KERNEL_WIDTH * DILATION
        right = tap % KERNEL_WIDTH * DILATION
        y = top + down
        x = side + right
        inside = ((y >= 0) & (y < HEIGHT) & (x >= 0) & (x < WIDTH))[:, None]
        source = input + (corner + (down * WIDTH + right) * C)[:, None] + c[None, :]
        kernel = weight + filters + (tap * C + c)[:, None]
        if EVEN_C:
            a = tl.load(source, mask=inside, other=0.0)
            b = tl.load(kernel)
        else:
            a = tl.load(source, mask=inside & (c < C)[None, :], other=0.0)
            b = tl.load(kernel, mask=(c < C)[:, None], other=0.0)
        sums = tl.dot(a, b, sums, input_precision="ieee")
    x = finish(sums, bias, residual, rows, columns, M, N, ACTIVATION)
    store(output, x, rows, columns, M, N)
