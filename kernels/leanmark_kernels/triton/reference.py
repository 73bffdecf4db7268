"""What each operator of this package means, in plain torch and float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.triton import packing


def finish(x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str) -> Tensor:
    """``activation(x + bias + residual)`` in the dtype of ``x``."""
    if bias is not None:
        x = x + bias.to(x.dtype)
    if residual is not None:
        x = x + residual.to(x.dtype)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "relu6": F.relu6,
        "gelu": F.gelu,
        "silu": F.silu,
    }
    return x if activation == "none" else functions[activation](x)


def fused_linear(
    input: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    output = F.linear(input.float(), weight.float())
    return finish(output, bias, residual, activation).to(input.dtype)


def int8_linear(
    input: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    sums = F.linear(input.double(), weight.double()).float()  # exact: int32 sums fit 53 bits
    return finish(sums * input_scale[..., None] * weight_scale, bias, residual, activation).to(dtype)


def quantize_activations(input: Tensor) -> tuple[Tensor, Tensor]:
    rows = input.float()
    largest = F.pad(rows, (0, 1)).abs().amax(-1)  # the pad serves K = 0
    scale = torch.where(largest == 0, 1.0, largest / 127)
    return (rows / scale[..., None]).round().clamp(-127, 127).nan_to_num().to(torch.int8), scale


def weight_only_linear(
    input: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    group_size: int,
    activation: str,
) -> Tensor:
    dense = packing.unpack_weight_only(weight, scale, group_size, input.shape[-1])
    return finish(F.linear(input.float(), dense), bias, residual, activation).to(input.dtype)


def block_sparse_linear(
    input: Tensor,
    values: Tensor,
    columns: Tensor,
    offsets: Tensor,
    order: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    weight = packing.Blocks(values, columns, offsets, order).dense(input.shape[-1])
    return finish(F.linear(input.float(), weight.float()), bias, residual, activation).to(input.dtype)


def fused_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    activation: str,
) -> Tensor:
    output = F.conv2d(input.float(), weight.float(), None, stride, padding, dilation)
    per_channel = None if bias is None else bias[:, None, None]
    finished = finish(output, per_channel, residual, activation).to(input.dtype)
    return finished.contiguous(memory_format=torch.channels_last)


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    activation: str,
) -> Tensor:
    output = F.conv2d(input.float(), weight.float(), None, stride, padding, dilation, groups=input.shape[1])
    per_channel = None if bias is None else bias[:, None, None]
    finished = finish(output, per_channel, residual, activation).to(input.dtype)
    return finished.contiguous(memory_format=torch.channels_last)
