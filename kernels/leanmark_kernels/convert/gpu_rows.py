"""Everything that can stand in for a layer on a GPU: one row each, libraries and our own operators alike.

The rest of the model has its own dtype there, and so has what is called ``fp32`` here.
"""

from __future__ import annotations

import copy
from functools import partial

from torch import nn

from leanmark_kernels.convert import libraries
from leanmark_kernels.convert.candidates import Candidate, Shape
from leanmark_kernels.convert.rows import LEAST_ZEROS, anything, linear_and_pointwise
from leanmark_kernels.triton import modules
from leanmark_kernels.triton.packing import BLOCKS, zero_share

_EPILOGUE = ("residual", "relu", "relu6", "gelu", "silu")


def _linear(linear: nn.Linear, activation: str | None, _: Shape) -> nn.Module:
    return modules.FusedLinear.from_linear(linear, activation=activation or "none")


def _weight_only(linear: nn.Linear, activation: str | None, _: Shape, bits: int) -> nn.Module:
    return modules.WeightOnlyLinear.from_linear(linear, bits=bits, activation=activation or "none")


def _int8(linear: nn.Linear, activation: str | None, _: Shape) -> nn.Module:
    return modules.Int8Linear.from_linear(linear, activation=activation or "none")


def _conv(conv: nn.Conv2d, activation: str | None, _: Shape) -> nn.Module:
    return modules.FusedConv2d.from_conv(conv, activation=activation or "none")


def _depthwise(conv: nn.Conv2d, activation: str | None, _: Shape) -> nn.Module:
    return modules.DepthwiseConv2d.from_conv(conv, activation=activation or "none")


def _sparse(linear: nn.Linear, activation: str | None, _: Shape, block: int) -> nn.Module:
    return modules.BlockSparseLinear.from_linear(linear, block=block, activation=activation or "none")


def _too_dense(linear: nn.Linear, block: int) -> str | None:
    zeros = zero_share(linear.weight.detach(), block)
    if zeros < LEAST_ZEROS:
        return f"{zeros:.0%} of its {block}x{block} blocks are zero; it must be {LEAST_ZEROS:.0%} or more"
    return modules.BlockSparseLinear.why_not(linear)


ROWS: tuple[Candidate, ...] = (
    Candidate("torch", nn.Linear, lambda layer, *_: copy.deepcopy(layer), anything),
    Candidate("torch", nn.Conv2d, lambda layer, *_: libraries.row_major(layer), anything),
    Candidate("torch channels_last", nn.Conv2d, lambda layer, *_: libraries.channels_last(layer), anything),
    Candidate(
        "fused linear",
        nn.Linear,
        _linear,
        modules.FusedLinear.why_not,
        "leanmark_kernels::fused_linear",
        fuses=_EPILOGUE,
    ),
    Candidate(
        "fused conv",
        nn.Conv2d,
        _conv,
        modules.FusedConv2d.why_not,
        "leanmark_kernels::fused_conv2d",
        fuses=_EPILOGUE,
    ),
    Candidate(
        "depthwise",
        nn.Conv2d,
        _depthwise,
        modules.DepthwiseConv2d.why_not,
        "leanmark_kernels::depthwise_conv2d",
        fuses=_EPILOGUE,
    ),
    *(
        Candidate(
            f"w{bits}a16",
            nn.Linear,
            partial(_weight_only, bits=bits),
            modules.WeightOnlyLinear.why_not,
            "leanmark_kernels::weight_only_linear",
            f"w{bits}",
            _EPILOGUE,
        )
        for bits in (8, 4)
    ),
    *linear_and_pointwise(
        "w8a8",
        "int8-exact",
        "leanmark_kernels::int8_linear",
        _int8,
        modules.Int8Linear.why_not,
        _EPILOGUE,
    ),
    *(
        Candidate(
            f"sparse {block}x{block}",
            nn.Linear,
            partial(_sparse, block=block),
            partial(_too_dense, block=block),
            "leanmark_kernels::block_sparse_linear",
            "sparse",
            _EPILOGUE,
        )
        for block in BLOCKS
    ),
)
"""As in ``leanmark_kernels.convert.rows``."""
