"""Depthwise convolution, NHWC: as fast as memory only where a thread does little beside its multiply-adds.

So a thread keeps a strip of output pixels of a few channels: each input is loaded and widened once for all
taps of a row of the kernel, and each weight once for the strip. The strips of a program lie below each other,
so that L1 serves the rows that they share.
"""

import triton
import triton.language as tl

from leanmark_kernels.triton.device.epilogue import finish, store


@triton.jit
def depthwise(
    input, weight, bias, residual, output, M, HEIGHT, WIDTH, OUT_HEIGHT, OUT_WIDTH,
    ACTIVATION: tl.constexpr, C: tl.constexpr, KERNEL_HEIGHT: tl.constexpr, KERNEL_WIDTH: tl.constexpr,
    STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr,
    STRIPS: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """``input`` [batch, HEIGHT, WIDTH, C], ``weight`` [KERNEL_HEIGHT, KERNEL_WIDTH, C], ``output`` [M, C].

    M counts output pixels; a program computes STRIPS strips of BLOCK_W of them for BLOCK_C channels. C is
    compiled in, which makes the distance of neighbours a part of the load and not an addition.
    """
    DEEP: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    index = tl.program_id(0)
    channels = index % DEEP * BLOCK_C + tl.arange(0, BLOCK_C)
    real = channels < C
    strip = index // DEEP * STRIPS + tl.arange(0, STRIPS)
    across = tl.cdiv(OUT_WIDTH, BLOCK_W)
    out_y = strip % OUT_HEIGHT
    out_x = strip // OUT_HEIGHT % across * BLOCK_W
    image = strip // (OUT_HEIGHT * across)
    pixel = (image * OUT_HEIGHT + out_y) * OUT_WIDTH + out_x
    exists = pixel < M
    top = out_y * STRIDE - PADDING
    left = out_x * STRIDE - PADDING
    corner = ((image * HEIGHT + top).to(tl.int64) * WIDTH + left) * C
    source = input + corner[:, None] + channels[None, :]
    taps = weight + channels
    # Unsigned, a negative coordinate is a large one: one comparison instead of two.
    height = tl.cast(HEIGHT, tl.uint32)
    width = tl.cast(WIDTH, tl.uint32)

    start = tl.zeros((STRIPS, BLOCK_C), tl.float32)
    if bias is not None:
        start += tl.load(bias + channels, mask=real, other=0.0).to(tl.float32)[None, :]
    sums = (start,) * BLOCK_W
    for row in range(KERNEL_HEIGHT):
        inside = exists & ((top + row * DILATION).to(tl.uint32) < height)
        line = ()
        for x in tl.static_range((BLOCK_W - 1) * STRIDE + (KERNEL_WIDTH - 1) * DILATION + 1):
            mask = (inside & ((left + x).to(tl.uint32) < width))[:, None] & real[None, :]
            line = line + (tl.load(source + x * C, mask=mask, other=0.0).to(tl.float32),)
        for column in tl.static_range(KERNEL_WIDTH):
            b = tl.load(taps + column * C, mask=real, other=0.0).to(tl.float32)[None, :]
            before = sums
            sums = ()
            for i in tl.static_range(BLOCK_W):
                sums = sums + (before[i] + line[i * STRIDE + column * DILATION] * b,)
        source += WIDTH * DILATION * C
        taps += KERNEL_WIDTH * C
    for i in tl.static_range(BLOCK_W):
        rows = tl.where(exists & (out_x + i < OUT_WIDTH), pixel + i, M)  # M is not stored
        result = finish(sums[i], None, residual, rows, channels, M, C, ACTIVATION)
        store(output, result, rows, channels, M, C)
