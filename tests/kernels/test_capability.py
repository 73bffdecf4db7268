"""Which instruction set the native operators take on this processor."""

import os
from pathlib import Path

import pytest

import leanmark_kernels

CPUINFO = Path("/proc/cpuinfo")
AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
NEEDED = {"avx512_vnni": AVX512 | {"avx512_vnni"}, "avx512": AVX512, "avx2": AVX2, "default": set[str]()}


@pytest.mark.skipif(
    not leanmark_kernels.available() or not CPUINFO.exists() or "ATEN_CPU_CAPABILITY" in os.environ,
    reason="needs native code, Linux, and the choice left to the processor",
)
def test_the_instruction_set_is_the_best_that_the_processor_has_all_parts_of() -> None:
    lines = [line for line in CPUINFO.read_text().splitlines() if line.startswith("flags")]
    flags = set(lines[0].split()) if lines else set()
    best = next(name for name, needed in NEEDED.items() if flags >= needed)
    assert leanmark_kernels.instruction_set() == best
