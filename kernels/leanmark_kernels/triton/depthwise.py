"""Depthwise convolutions with a fused epilogue, channels_last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.triton import reference, tuning, windows
from leanmark_kernels.triton.configuration import Config, Launch, config, pieces
from leanmark_kernels.triton.device_limits import Limits
from leanmark_kernels.triton.kernel import Kernel, rows_bucket
from leanmark_kernels.triton.registration import register
from leanmark_kernels.triton.windows import Problem, Window

LARGEST_KERNEL = 7
"""Every tap is unrolled."""


def depthwise_conv2d(
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
    """``activation(conv2d(input, weight, bias, ..., groups=C) + residual)``, for inference.

    ``input`` is [N, C, H, W], ``weight`` [C, 1, R, S] with R and S up to 7; everything else is as in
    :func:`leanmark_kernels.triton.fused_conv2d`. ``weight`` is rearranged on each call, which is cheap beside
    the input.

    Raises ``TypeError`` for dtypes, ``ValueError`` for shapes, devices, an activation or a window that do not
    fit. The backward pass raises ``NotImplementedError``.
    """
    window = Window(stride, padding, dilation)
    windows.check("depthwise_conv2d", input, weight, bias, residual, window, activation)
    if weight.shape[:2] != (input.shape[1], 1) or max(weight.shape[2:]) > LARGEST_KERNEL:
        raise ValueError(
            f"depthwise_conv2d: weight is {list(weight.shape)}; it must be [{input.shape[1]}, 1, R, S], "
            f"R and S up to {LARGEST_KERNEL}, since input is {list(input.shape)}"
        )
    output: Tensor = torch.ops.leanmark_kernels.depthwise_conv2d.default(
        input, weight, bias, residual, stride, padding, dilation, activation
    )
    return for_inference("depthwise_conv2d", output)


def _why_not(problem: Problem, config: Config, limits: Limits) -> str | None:
    channels = problem.input.shape[3]
    if config["BLOCK_C"] > max(32, rows_bucket(channels)):
        return f"blocks of {config['BLOCK_C']} channels for {channels}"
    return None


def _launches(problem: Problem, config: Config, limits: Limits) -> Sequence[Launch]:
    from leanmark_kernels.triton.device.depthwise import depthwise

    batch, height, width, channels = problem.input.shape
    r, s, _ = problem.weight.shape
    window = problem.window
    out_height, out_width = window.output_size(height, r), window.output_size(width, s)
    arguments = {
        "input": problem.input,
        "weight": problem.weight,
        "bias": problem.bias,
        "residual": problem.residual,
        "output": problem.output,
        "M": problem.output.shape[0],
        "HEIGHT": height,
        "WIDTH": width,
        "OUT_HEIGHT": out_height,
        "OUT_WIDTH": out_width,
    }
    constants = {
        "ACTIVATION": problem.activation,
        "C": channels,
        "KERNEL_HEIGHT": r,
        "KERNEL_WIDTH": s,
        "STRIDE": window.stride,
        "PADDING": window.padding,
        "DILATION": window.dilation,
    }
    strips = batch * out_height * pieces(out_width, config["BLOCK_W"])
    grid = (pieces(strips, config["STRIPS"]) * pieces(channels, config["BLOCK_C"]),)
    return [Launch(depthwise, grid, arguments, constants, config)]


# Sixteen bytes per thread: a thread has eight channels of a strip of 16-bit numbers. Seven divides the widths
# of most networks: 7, 14, 28, 56, 112.
KERNEL = Kernel(
    "depthwise",
    tuple(
        config(warps, 1, STRIPS=strips, BLOCK_W=w, BLOCK_C=c)
        for strips, w, c, warps in (
            (16, 4, 64, 4),
            (16, 7, 64, 4),
            (16, 8, 64, 4),
            (32, 7, 32, 4),
            (32, 8, 32, 4),
            (16, 4, 32, 2),
        )
    ),
    _why_not,
    _launches,
    lambda problem: problem.key("depthwise"),
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
    taps = weight[:, 0].permute(1, 2, 0).contiguous()
    problem = Problem.of(input, taps, bias, residual, output, window, activation)
    tuning.solve((KERNEL,), problem)
    return output


register(
    "depthwise_conv2d(Tensor input, Tensor weight, Tensor? bias, Tensor? residual, int stride, int padding, "
    "int dilation, str activation) -> Tensor",
    _compute,
    reference.depthwise_conv2d,
    windows.shape,
)
