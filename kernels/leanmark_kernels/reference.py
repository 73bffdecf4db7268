"""What each operator means, in plain torch: the definition its native kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from leanmark_kernels.activations import ACTIVATIONS
from leanmark_kernels.packing import unpack_linear, unpack_winograd
from leanmark_kernels.winograd_forms import AS_STORED, form_of


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``relu(input @ weight.T + bias)``.

    ``input`` is [*, K], ``weight`` [N, K], ``bias`` [N] or ``None``, all of one floating dtype;
    returns [*, N].
    """
    return torch.relu(F.linear(input, weight, bias))


def packed_linear(
    input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, out_features: int, relu: bool
) -> Tensor:
    """``(input @ w.T) * scale + bias``, then ReLU if ``relu``.

    ``input`` is [*, K] of a floating dtype, ``weight`` the packed form of w [out_features, K] as
    :func:`leanmark_kernels.packing.pack_linear` makes it; returns [*, out_features].
    """
    output = F.linear(input, unpack_linear(weight, out_features, input.shape[-1]).to(input.dtype))
    if scale is not None:
        output = output * scale
    if bias is not None:
        output = output + bias
    return torch.relu(output) if relu else output


def winograd_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    padding: int,
    stride: int,
    relu: bool,
) -> Tensor:
    """A convolution, plus ``residual``, then ReLU if ``relu``: A^T (U · B^T d B) A per tile.

    ``input`` is [N, C, H, W], ``weight`` U as :func:`leanmark_kernels.packing.pack_winograd` makes it.
    Returns [N, out_channels, H', W'] in channels_last.
    """
    form = form_of(weight.shape, stride)
    assert form is not None
    height, width = (form.size(size, padding) for size in input.shape[2:])
    b, a = (input.new_tensor(matrix) for matrix in (form.input, form.output))
    transformed = torch.einsum("ai,nchwij,bj->abnchw", b, form.tiles(input, padding), b)
    rows = len(form.weights)
    if weight.dim() == AS_STORED:
        u = form.transformed(unpack_winograd(weight, out_channels)).unflatten(0, (rows, rows))
    else:
        u = weight.transpose(2, 3).reshape(rows, rows, -1, weight.shape[2])[:, :, :out_channels]
    meets = torch.tensor(form.meets, device=u.device)
    products = torch.einsum("aboc,abnchw->abnohw", u[meets][:, meets], transformed)
    squares = torch.einsum("pa,abnohw,qb->nohpwq", a, products, a)
    output = squares.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]

    if bias is not None:
        output = output + bias[:, None, None]
    if residual is not None:
        output = output + residual
    if relu:
        output = torch.relu(output)
    return output.contiguous(memory_format=torch.channels_last)


def direct_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    window: Sequence[int],
    activation: int,
) -> Tensor:
    """A convolution, plus ``residual``, then the activation of that number.

    ``input`` is [N, C, H, W], ``weight`` as :func:`leanmark_kernels.packing.pack_direct` makes it, ``window``
    kernel_size, stride and padding, each for height and width. Returns [N, out_channels, H', W'] in
    channels_last.
    """
    kernel_size, stride, padding = window[:2], window[2:4], window[4:]
    rows = unpack_linear(weight, out_channels, weight.shape[1])
    filters = rows.unflatten(1, (*kernel_size, -1)).permute(0, 3, 1, 2)
    output = F.conv2d(input, filters, bias, tuple(stride), tuple(padding))
    if residual is not None:
        output = output + residual
    return activated(output, activation).contiguous(memory_format=torch.channels_last)


def max_pool2d(input: Tensor, window: Sequence[int]) -> Tensor:
    """The largest under each ``window``: kernel_size, stride and padding, each for height and width.

    ``input`` is [N, C, H, W]. Returns [N, C, H', W'] in channels_last.
    """
    output = F.max_pool2d(input, tuple(window[:2]), tuple(window[2:4]), tuple(window[4:]))
    return output.contiguous(memory_format=torch.channels_last)


def mean_pool2d(input: Tensor) -> Tensor:
    """The mean over all pixels, [N, C, H, W] -> [N, C, 1, 1] in channels_last."""
    return input.mean((2, 3), keepdim=True).contiguous(memory_format=torch.channels_last)


def activated(output: Tensor, activation: int) -> Tensor:
    """``output`` after the activation of that number."""
    name = ACTIVATIONS[activation]
    if name == "none":
        return output
    return torch.relu(output) if name == "relu" else F.relu6(output)
