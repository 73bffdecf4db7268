"""leanmark's own operators: native C++ where it was built, plain torch everywhere else.

Set ``LEANMARK_NATIVE=0`` to leave the native code out, when building and when running.
"""

from leanmark_kernels._native import available, instruction_set, why_unavailable
from leanmark_kernels.convert import convert
from leanmark_kernels.depthwise_modules import DepthwiseConv2d, InvertedResidual
from leanmark_kernels.direct_modules import DirectConv2d
from leanmark_kernels.integer_modules import Int8Conv2d, Int8Linear, Int8WinogradConv2d, W4A8Linear
from leanmark_kernels.modules import PackedLinear, WinogradConv2d
from leanmark_kernels.ops import (
    depthwise_conv2d,
    direct_conv2d,
    int8_conv2d,
    int8_dynamic_linear,
    int8_linear,
    int8_winograd_conv2d,
    inverted_residual,
    linear_relu,
    max_pool2d,
    mean_pool2d,
    packed_linear,
    quantize_int8,
    sparse_conv2d,
    sparse_linear,
    w4a8_linear,
    winograd_conv2d,
)
from leanmark_kernels.pooling_modules import MaxPool2d, MeanPool2d
from leanmark_kernels.sparse_modules import SparseConv2d, SparseLinear

__all__ = [
    "DepthwiseConv2d",
    "DirectConv2d",
    "Int8Conv2d",
    "Int8Linear",
    "Int8WinogradConv2d",
    "InvertedResidual",
    "MaxPool2d",
    "MeanPool2d",
    "PackedLinear",
    "SparseConv2d",
    "SparseLinear",
    "W4A8Linear",
    "WinogradConv2d",
    "available",
    "convert",
    "depthwise_conv2d",
    "direct_conv2d",
    "instruction_set",
    "int8_conv2d",
    "int8_dynamic_linear",
    "int8_linear",
    "int8_winograd_conv2d",
    "inverted_residual",
    "linear_relu",
    "max_pool2d",
    "mean_pool2d",
    "packed_linear",
    "quantize_int8",
    "sparse_conv2d",
    "sparse_linear",
    "w4a8_linear",
    "why_unavailable",
    "winograd_conv2d",
]
