"""Convolutions with a fused epilogue, channels_last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.triton import gemm, reference, tuning, windows
from leanmark_kernels.triton.configuration import Config, Launch, config, pieces
from leanmark_kernels.triton.device_limits import Limits
from leanmark_kernels.triton.kernel import Kernel, rows_bucket, why_shared
from leanmark_kernels.triton.registration import register
from leanmark_kernels.triton.windows import Problem, Window, nhwc


def fused_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    activation: str = "none",
) -> Tensor:
    """``activation(conv2d(input, weight, bias, stride, padding, dilation) + residual)``; for inference.

    ``input`` is [N, C, H, W], ``weight`` [O, C, R, S], ``bias`` [O], ``residual`` of the output's shape, all
    float16, bfloat16 or float32 and of one dtype. Tensors of 4 dimensions are copied on each call unless they
    are in ``torch.channels_last``, as the result is. A batch norm goes into weight and bias beforehand:
    ``torch.nn.utils.fusion.fuse_conv_bn_eval``. Products and epilogue are float32, rounded once at the end.

    Raises ``TypeError`` for dtypes, ``ValueError`` for shapes, devices, an activation or a window that do not
    fit. The backward pass raises ``NotImplementedError``.
    """
    window = Window(stride, padding, dilation)
    windows.check("fused_conv2d", input, weight, bias, residual, window, activation)
    if input.shape[1] != weight.shape[1]:
        raise ValueError(
            f"fused_conv2d: input is {list(input.shape)}; it must be [N, {weight.shape[1]}, H, W], "
            f"since weight is {list(weight.shape)}"
        )
    output: Tensor = torch.ops.leanmark_kernels.fused_conv2d.default(
        input, weight, bias, residual, stride, padding, dilation, activation
    )
    return for_inference("fused_conv2d", output)


def _why_not(problem: Problem, config: Config, limits: Limits) -> str | None:
    m, n, k = config["BLOCK_M"], config["BLOCK_N"], config["BLOCK_K"]
    pixels, filters = problem.output.shape
    if m > max(16, rows_bucket(pixels)):
        return f"tiles of {m} pixels for {pixels}"
    if n > max(32, rows_bucket(filters)):
        return f"tiles of {n} filters for {filters}"
    if k > max(32, rows_bucket(problem.input.shape[3])):
        return f"steps of {k} channels for {problem.input.shape[3]}"
    if config["SUBTILES"] > 1 and problem.input.itemsize == 4:
        return "float32 products do not run on tensor cores, and leave no registers for such a tile"
    return why_shared(config.stages, (m + n) * k * problem.input.itemsize, limits)


def _launches(problem: Problem, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.conv2d import conv2d

    _, height, width, channels = problem.input.shape
    pixels, filters = problem.output.shape
    _, r, s, _ = problem.weight.shape
    window = problem.window
    arguments = {
        "input": problem.input,
        "weight": problem.weight,
        "bias": problem.bias,
        "residual": problem.residual,
        "output": problem.output,
        "M": pixels,
        "N": filters,
        "HEIGHT": height,
        "WIDTH": width,
        "OUT_HEIGHT": window.output_size(height, r),
        "OUT_WIDTH": window.output_size(width, s),
    }
    constants = {
        "ACTIVATION": problem.activation,
        "C": channels,
        "KERNEL_HEIGHT": r,
        "KERNEL_WIDTH": s,
        "STRIDE": window.stride,
        "PADDING": window.padding,
        "DILATION": window.dilation,
        "GROUP_M": gemm.GROUP_M,
    }
    grid = (pieces(pixels, config["BLOCK_M"]) * pieces(filters, config["BLOCK_N"]),)
    return [Launch(conv2d, grid, arguments, constants, config)]


KERNEL = Kernel(
    "conv2d",
    tuple(
        config(warps, stages, BLOCK_M=m, BLOCK_N=n, BLOCK_K=k, SUBTILES=subtiles)
        for m, n, k, warps, stages, subtiles in (
            (128, 64, 64, 4, 3, 1),
            (128, 128, 64, 8, 3, 1),
            (128, 128, 64, 4, 3, 2),
            (128, 256, 64, 8, 3, 2),
            (64, 128, 64, 4, 4, 1),
            (64, 64, 64, 4, 4, 1),
            (128, 64, 32, 4, 4, 1),
            (64, 32, 32, 4, 4, 1),
            (16, 64, 128, 4, 3, 1),
            (16, 32, 32, 2, 4, 1),
        )
    ),
    _why_not,
    _launches,
    lambda problem: problem.key("conv2d"),
)


def _compute(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    activation: str,
) -> Tensor:
    window = Window(stride, padding, dilation)
    output = windows.empty_output(input, weight, window)
    problem = Problem.of(input, nhwc(weight), bias, residual, output, window, activation)
    if weight.shape[2:] == (1, 1) and (stride, padding) == (1, 0):
        pixels, filters = problem.input.flatten(0, 2), problem.weight.flatten(1)
        product = gemm.Product(
            pixels,
            filters,
            problem.output,
            bias=problem.bias,
            residual=problem.residual,
            activation=activation,
        )
        tuning.solve(gemm.kernels(input.dtype), product)
    else:
        tuning.solve((KERNEL,), problem)
    return output


register(
    "fused_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int stride, int padding, "
    "int dilation, str activation) -> Tensor",
    _compute,
    reference.fused_conv2d,
    windows.shape,
)
