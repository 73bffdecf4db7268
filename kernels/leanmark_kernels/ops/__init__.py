"""The operators as Python functions, and their registration with torch.

Each operator ``leanmark::name`` has a schema, a reference for every device, a native CPU kernel where it was
built, and a shape function for tracing. The functions of float32 operators have a gradient, with respect to
everything that is float32, weights as they are packed included; those that round refuse one.
"""

from leanmark_kernels.ops.depthwise_conv2d import depthwise_conv2d
from leanmark_kernels.ops.direct_conv2d import direct_conv2d
from leanmark_kernels.ops.int8_conv2d import int8_conv2d, int8_winograd_conv2d
from leanmark_kernels.ops.int8_linear import int8_dynamic_linear, int8_linear, quantize_int8
from leanmark_kernels.ops.inverted_residual import inverted_residual
from leanmark_kernels.ops.linear_relu import linear_relu
from leanmark_kernels.ops.packed_linear import packed_linear
from leanmark_kernels.ops.pooling import max_pool2d, mean_pool2d
from leanmark_kernels.ops.sparse_conv2d import sparse_conv2d
from leanmark_kernels.ops.sparse_linear import sparse_linear
from leanmark_kernels.ops.w4a8_linear import w4a8_linear
from leanmark_kernels.ops.winograd_conv2d import winograd_conv2d

__all__ = [
    "depthwise_conv2d",
    "direct_conv2d",
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
    "winograd_conv2d",
]
