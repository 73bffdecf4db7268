"""leanmark's own operators: native C++ where it was built, plain torch everywhere else.

Set ``LEANMARK_NATIVE=0`` to leave the native code out, when building and when running.
"""

from leanmark_kernels._native import available, instruction_set, why_unavailable
from leanmark_kernels.ops import linear_relu

__all__ = ["available", "instruction_set", "linear_relu", "why_unavailable"]
