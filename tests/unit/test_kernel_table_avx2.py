"""A library that asks the processor what it has is told of AVX2 and nothing newer."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="CPUID is an instruction of x86"),
    pytest.mark.skipif(
        not all(shutil.which(tool) for tool in ("cc", "objdump", "readelf")), reason="needs cc and binutils"
    ),
]

ASKING = r"""
#include <cpuid.h>
unsigned word(unsigned leaf, unsigned subleaf, int which) {
  unsigned found[4];
  __cpuid_count(leaf, subleaf, found[0], found[1], found[2], found[3]);
  return found[which];
}
const unsigned char not_code[] = {0x0F, 0xA2, 0x0F, 0xA2};
"""
PROGRAM = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.word.restype = ctypes.c_uint
print(*(library.word(leaf, sub, which) for leaf, sub, which in ((1, 0, 2), (7, 0, 1), (7, 0, 2), (7, 1, 0))))
"""
NEWER = {1: 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31, 2: 1 << 1 | 1 << 11, 3: 1 << 4 | 1 << 5}


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    return importlib.import_module("kernel_table.avx2")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    source, built = tmp_path / "asking.c", tmp_path / "asking.so"
    source.write_text(ASKING)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, source], check=True)
    return built


def _words(library: Path, **variables: str) -> list[int]:
    command = [sys.executable, "-c", PROGRAM, str(library)]
    said = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True)
    return [int(word) for word in said.stdout.split()]


def test_newer_instruction_sets_are_taken_out_of_the_answer(
    avx2: ModuleType, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, constants = _words(library), library.read_bytes().count(b"\x0f\xa2\x0f\xa2")
    assert avx2.replace_cpuid(library) == 1
    assert library.read_bytes().count(b"\x0f\xa2\x0f\xa2") == constants == 1  # not code
    monkeypatch.setattr(avx2, "PACKAGES", ())
    with avx2.environment() as variables:
        after = _words(library, **variables)
    cleared = [old & ~new for old, new in zip(before, after, strict=True)]
    assert [new & ~old for old, new in zip(before, after, strict=True)] == [0, 0, 0, 0]
    assert after[1] >> 5 & 1 == before[1] >> 5 & 1  # AVX2 itself
    assert cleared[0] == 0
    for which, bits in NEWER.items():
        assert after[which] & bits == 0
        assert cleared[which] & bits == before[which] & bits


def test_without_the_handler_it_ends_as_any_illegal_instruction_does(avx2: ModuleType, library: Path) -> None:
    avx2.replace_cpuid(library)
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _words(library)
    assert caught.value.returncode == -4  # SIGILL


def test_a_real_illegal_instruction_still_ends_the_process(
    avx2: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, built = tmp_path / "trap.c", tmp_path / "trap.so"
    source.write_text("unsigned word(void) { __builtin_trap(); }")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, source], check=True)
    monkeypatch.setattr(avx2, "PACKAGES", ())
    with avx2.environment() as variables, pytest.raises(subprocess.CalledProcessError) as caught:
        _words(built, **variables)
    assert caught.value.returncode == -4


def test_the_variables_of_the_others_are_set(avx2: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avx2, "PACKAGES", ())
    with avx2.environment() as variables:
        folder = Path(variables["LD_PRELOAD"]).parent
        assert folder.is_dir()
        assert variables["PYTHONPATH"].split(os.pathsep)[0] == str(folder)
        assert variables["ATEN_CPU_CAPABILITY"] == "avx2"
        assert variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert not folder.exists()
