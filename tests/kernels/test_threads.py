"""How many threads compute a result never shows in it, whatever waking them was measured or said to cost."""

import os
import subprocess
import sys

import pytest

import leanmark_kernels

PROGRAM = """
import zlib
import torch
from leanmark_kernels import (
    depthwise_conv2d, depthwise_packing, direct_conv2d, integer_packing, packed_linear, packing, w4a8_linear
)

generator = torch.Generator().manual_seed(1)
draw = lambda *shape: torch.randn(shape, generator=generator)
rows, weight, image, taps = draw(9, 512), draw(300, 512), draw(2, 130, 20, 20), draw(130, 1, 3, 3)
integers, scale = integer_packing.quantize_channels(weight)
int4 = integer_packing.pack_int4(integer_packing.quantize_int4(weight))
packed, depthwise = packing.pack_linear(integers), depthwise_packing.pack_depthwise(taps)
direct = packing.pack_direct(draw(9, 130, 3, 3))
for threads in (1, 2, 3, 1, 2):
    torch.set_num_threads(threads)
    outputs = (
        packed_linear(rows, packed, scale, out_features=300),
        w4a8_linear(rows, *int4, out_features=300),
        depthwise_conv2d(image, depthwise),
        direct_conv2d(image, direct, out_channels=9, kernel_size=(3, 3), padding=(1, 1)),
    )
    print([zlib.crc32(output.contiguous().numpy().tobytes()) for output in outputs])
"""


def lines(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
def test_threads_do_not_change_a_bit() -> None:
    always, never, measured = lines(LEANMARK_REGION_NS="0"), lines(LEANMARK_REGION_NS=f"{10**12}"), lines()
    assert len(always) == 5
    assert set(always) == set(never) == set(measured) == {always[0]}
