"""Depthwise convolution, NHWC: limited by memory, so it keeps to wide loads and lets L1 serve the overlap."""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import finish, store


@triton.jit
def depthwise(
    input, weight, bias, residual, output, M, C, HEIGHT, WIDTH, OUT_HEIGHT, OUT_WIDTH,
    ACTIVATION: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``input`` [batch, HEIGHT, WIDTH, C], ``weight`` [KERNEL_HEIGHT, KERNEL_WIDTH, C], ``output`` [M, C].

    M counts output pixels; a program computes BLOCK_H x BLOCK_W of them for BLOCK_C channels.
    """
    wide = tl.cdiv(OUT_WIDTH, BLOCK_W)
    high = tl.cdiv(OUT_HEIGHT, BLOCK_H)
    deep = tl.cdiv(C, BLOCK_C)
    index = tl.program_id(0)
    channels = index % deep * BLOCK_C + tl.arange(0, BLOCK_C)
    tile = index // deep
    pixel = tl.arange(0, BLOCK_H * BLOCK_W)
    out_y = tile // wide % high * BLOCK_H + pixel // BLOCK_W
    out_x = tile % wide * BLOCK_W + pixel % BLOCK_W
    image = tile // (wide * high)
    exists = (out_y < OUT_HEIGHT) & (out_x < OUT_WIDTH)

    sums = tl.zeros((BLOCK_H * BLOCK_W, BLOCK_C), tl.float32)
    for row in tl.static_range(KERNEL_HEIGHT):
        y = out_y * STRIDE - PADDING + row * DILATION
        line = (image * HEIGHT + y).to(tl.int64) * WIDTH
        for column in tl.static_range(KERNEL_WIDTH):
            x = out_x * STRIDE - PADDING + column * DILATION
            inside = exists & (y >= 0) & (y < HEIGHT) & (x >= 0) & (x < WIDTH)
            mask = inside[:, None] & (channels < C)[None, :]
            a = tl.load(input + ((line + x) * C)[:, None] + channels[None, :], mask=mask, other=0.0)
            tap = weight + (row * KERNEL_WIDTH + column) * C + channels
            b = tl.load(tap, mask=channels < C, other=0.0)
            sums += a.to(tl.float32) * b.to(tl.float32)[None, :]
    rows = tl.where(exists, (image * OUT_HEIGHT + out_y) * OUT_WIDTH + out_x, M)  # M is not stored
    result = finish(sums, bias, residual, rows, channels, M, C, ACTIVATION)
    store(output, result, rows, channels, M, C)
