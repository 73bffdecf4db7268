"""Compiles candidates as the first call on a Hopper GPU would, on a machine without one; prints what failed.

``triton_jit.py`` compiles some configurations for one row, whose count Triton compiles in, and one that it
cannot: the block of its last is not a power of two.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import torch
import triton
from triton.backends.compiler import GPUTarget

from leanmark_kernels.triton import device_limits, tuning, weight_only
from leanmark_kernels.triton.configuration import config
from leanmark_kernels.triton.tuning import Candidate


class Hopper:
    """A driver without a device: what Triton asks of it before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def main() -> None:
    triton.runtime.driver.set_active(Hopper())
    wide, row = 256, torch.zeros(1, 256, dtype=torch.bfloat16)
    packed, scale = torch.zeros(2, wide, 64, dtype=torch.uint8), torch.ones(2, wide)
    problem = weight_only.Problem(row, packed, scale, None, torch.zeros_like(row), 128, "none")
    limits = device_limits.on_paper((9, 0))
    found = tuning.candidates((weight_only.FEW, weight_only.TILES), problem, limits)
    some = [*{each.kernel.name: each for each in found}.values()]
    impossible = config(4, 1, BLOCK_M=16, BLOCK_N=48, SPLIT_K=1, STAGES=4)
    some.append(Candidate(replace(weight_only.TILES, space=(impossible,)), impossible))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        refused = tuning.compile_all(some, problem, limits)
    from leanmark_kernels.triton.device import epilogue
    from leanmark_kernels.triton.device import weight_only as device

    functions = (device.weight_only, device.weight_only_few, epilogue.combine)
    print(
        json.dumps(
            {
                "compiled": {each.__name__: len(each.device_caches[0][0]) > 0 for each in functions},
                "refused": {str(each): why for each, why in refused.items()},
                "told": [str(one.message).partition(":")[0] for one in told],
            }
        )
    )


if __name__ == "__main__":
    main()
