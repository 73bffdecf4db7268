"""leanmark's own operators: native C++ where it was built, plain torch everywhere else.

Set ``LEANMARK_NATIVE=0`` to leave the native code out, when building and when running.
"""

from leanmark_kernels._native import available, instruction_set, why_unavailable
from leanmark_kernels.modules import PackedLinear, WinogradConv2d, winograd_error
from leanmark_kernels.ops import linear_relu, packed_linear, winograd_conv2d

__all__ = [
    "PackedLinear",
    "WinogradConv2d",
    "available",
    "instruction_set",
    "linear_relu",
    "packed_linear",
    "why_unavailable",
    "winograd_conv2d",
    "winograd_error",
]
