"""leanmark's GPU operators, written in Triton; plain torch where Triton cannot run.

Importing this package does not import triton: the first call does. With ``TRITON_INTERPRET=1`` in the
environment before torch and triton are loaded, the same kernels run on CPU tensors, for tests.
"""

from leanmark_kernels.triton.availability import available, why_unavailable
from leanmark_kernels.triton.block_sparse import block_sparse_linear
from leanmark_kernels.triton.conv2d import fused_conv2d
from leanmark_kernels.triton.depthwise import depthwise_conv2d
from leanmark_kernels.triton.linear import fused_linear, int8_linear
from leanmark_kernels.triton.packing import Blocks, pack_blocks, pack_weight_only
from leanmark_kernels.triton.quantize import quantize_activations
from leanmark_kernels.triton.weight_only import weight_only_linear

__all__ = [
    "Blocks",
    "available",
    "block_sparse_linear",
    "depthwise_conv2d",
    "fused_conv2d",
    "fused_linear",
    "int8_linear",
    "pack_blocks",
    "pack_weight_only",
    "quantize_activations",
    "weight_only_linear",
    "why_unavailable",
]
