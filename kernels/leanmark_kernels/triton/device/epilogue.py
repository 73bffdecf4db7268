"""What happens to an accumulator between the last product and the store."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    if ACTIVATION == "relu":
        x = tl.where(x < 0, 0.0, x)  # unlike max(x, 0), NaN stays NaN
    elif ACTIVATION == "relu6":
        x = tl.where(x < 0, 0.0, tl.where(x > 6, 6.0, x))
    elif ACTIVATION == "gelu":
        x = gelu(x)
    elif ACTIVATION == "silu":
        x = x / (1.0 + tl.math.exp2(x * -1.4426950408889634))
    return x


@triton.jit
def gelu(x):
    """``x P(X < x)`` for a normal X, as torch's exact one, to 1.4e-7 absolute and 8e-8 abs(x).

    That is ``max(x, 0) - u P(X < -u)`` with u = abs(x). The logarithm of that chance is nearly a parabola: a
    polynomial of degree 8 serves, fitted over 0 .. 14, where the chance is less than float32 holds. These are
    12 instructions against the 37 of ``erf``, which chooses between two polynomials, and with which the
    epilogue would last a seventh as long as a product over 4096.
    """
    u = tl.minimum(tl.abs(x), 14.0)
    log2 = -7.532717751203588e-07 * u + 1.6812999092508107e-05
    log2 = log2 * u - 9.015323303174227e-05
    log2 = log2 * u - 3.4221081295982e-04
    log2 = log2 * u + 7.297539617866279e-03
    log2 = log2 * u - 5.263568460941315e-02
    log2 = log2 * u - 4.591688513755798e-01
    log2 = log2 * u - 1.1511093378067017
    log2 = log2 * u - 9.999999403953552e-01
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) - u * tl.math.exp2(log2)


@triton.jit
def dequantize(sums, row_scale, column_scale, rows, columns, M, N):
    """Integer sums as float32, by one scale per row and one per column; floating sums pass."""
    x = sums.to(tl.float32)
    if row_scale is not None:
        x = x * tl.load(row_scale + rows, mask=rows < M, other=0.0)[:, None]
    if column_scale is not None:
        x = x * tl.load(column_scale + columns, mask=columns < N, other=0.0)[None, :]
    return x


@triton.jit
def finish(x, bias, residual, rows, columns, M, N, ACTIVATION: tl.constexpr):
    """``activation(x + bias + residual)`` of a float32 tile of [M, N]."""
    if bias is not None:
        x += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    if residual is not None:
        offsets = rows.to(tl.int64)[:, None] * N + columns[None, :]
        inside = (rows < M)[:, None] & (columns < N)[None, :]
        x += tl.load(residual + offsets, mask=inside, other=0.0).to(tl.float32)
    return activate(x, ACTIVATION)


@triton.jit
def halves(x):
    """Columns of a tile, the first half and the second: an epilogue of each needs half the registers."""
    HIGH: tl.constexpr = x.shape[0]
    WIDE: tl.constexpr = x.shape[1] // 2
    return tl.split(tl.permute(tl.reshape(x, (HIGH, 2, WIDE)), (0, 2, 1)))


@triton.jit
def store(output, x, rows, columns, M, N):
    offsets = rows.to(tl.int64)[:, None] * N + columns[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    tl.store(output + offsets, x.to(output.dtype.element_ty), mask=inside)


@triton.jit
def write(
    sums, row_scale, column_scale, bias, residual, output, rows, columns, M, N, ACTIVATION: tl.constexpr
):  # fmt: skip
    """All that follows the last product, for one tile."""
    x = dequantize(sums, row_scale, column_scale, rows, columns, M, N)
    x = finish(x, bias, residual, rows, columns, M, N, ACTIVATION)
    store(output, x, rows, columns, M, N)


@triton.jit
def write_halves(
    sums, row_scale, column_scale, bias, residual, output, rows, first, M, N, ACTIVATION: tl.constexpr
):  # fmt: skip
    """The same for the columns from ``first`` on, in two halves."""
    WIDTH: tl.constexpr = sums.shape[1] // 2
    columns = first + tl.arange(0, WIDTH)
    low, high = halves(sums)
    write(low, row_scale, column_scale, bias, residual, output, rows, columns, M, N, ACTIVATION)
    columns += WIDTH
    write(high, row_scale, column_scale, bias, residual, output, rows, columns, M, N, ACTIVATION)


@triton.jit
def combine(
    partial, row_scale, column_scale, bias, residual, output, M, N,
    ACTIVATION: tl.constexpr, WAITS: tl.constexpr,
    SPLIT_K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Adds up the ``partial`` sums [SPLIT_K, M, N], always in the same order, and finishes them."""
    if WAITS:  # for all that the launch in front wrote, before anything is read
        gdc_wait()
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    offsets = rows.to(tl.int64)[:, None] * N + columns[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    sums = tl.zeros((BLOCK_M, BLOCK_N), partial.dtype.element_ty)
    for _ in tl.static_range(SPLIT_K):
        sums += tl.load(partial + offsets, mask=inside, other=0)
        offsets += M * N
    write(sums, row_scale, column_scale, bias, residual, output, rows, columns, M, N, ACTIVATION)
