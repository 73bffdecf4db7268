"""The operators as Python functions, and their registration with torch.

Each operator ``leanmark::name`` has a schema, a reference for every device, a native CPU kernel where it was
built, a shape function for tracing, and a gradient where training uses it.
"""

from leanmark_kernels.ops.linear_relu import linear_relu
from leanmark_kernels.ops.packed_linear import packed_linear
from leanmark_kernels.ops.winograd_conv2d import winograd_conv2d

__all__ = ["linear_relu", "packed_linear", "winograd_conv2d"]
