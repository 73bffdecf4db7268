"""The packed operators on random shapes: every instruction set, poisoned memory, and under sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import leanmark_kernels

ROOT = Path(__file__).parents[2]
ORDER = ["default", "avx2", "avx512", "avx512_vnni"]
needs_native = pytest.mark.skipif(
    not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}"
)


def run(count: int, program: str = "random_shapes.py", **environment: str) -> str:
    # Memory from malloc is poisoned too, with 3.4e38.
    # Small shapes would stay on one thread, were waking others not said to cost nothing.
    threads = {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "passive", "LEANMARK_REGION_NS": "0"}
    poison = {"MALLOC_PERTURB_": "128", "MALLOC_MMAP_THRESHOLD_": f"{2**30}"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/kernels" / program), str(count)],
        env={**os.environ, **threads, **poison, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


def count_for(capability: str, most: int) -> int:
    """``most`` shapes for the best instruction set of this machine, a part of them for the others."""
    return most if capability == leanmark_kernels.instruction_set() else most // 5


@needs_native
@pytest.mark.parametrize("capability", ORDER)
def test_every_instruction_set_up_to_this_machines(capability: str) -> None:
    if ORDER.index(capability) > ORDER.index(leanmark_kernels.instruction_set()):
        pytest.skip(f"this machine stops at {leanmark_kernels.instruction_set()}")
    count = count_for(capability, 2000)  # half of them convolutions
    assert run(count, ATEN_CPU_CAPABILITY=capability) == f"{capability} {count}"


@pytest.mark.slow
@needs_native
@pytest.mark.parametrize("capability", ORDER)
def test_sparse_depthwise_and_direct_on_every_instruction_set_up_to_this_machines(capability: str) -> None:
    if ORDER.index(capability) > ORDER.index(leanmark_kernels.instruction_set()):
        pytest.skip(f"this machine stops at {leanmark_kernels.instruction_set()}")
    count = count_for(capability, 6000)  # a sixth for each kind
    assert run(count, "sparse_shapes.py", ATEN_CPU_CAPABILITY=capability) == f"{capability} {count}"


@pytest.mark.slow
def test_without_native_code() -> None:
    assert run(150, LEANMARK_NATIVE="0") == "reference 150"
    assert run(180, "sparse_shapes.py", LEANMARK_NATIVE="0") == "reference 180"


@pytest.mark.slow
@needs_native
@pytest.mark.parametrize(("capability", "count"), [("default", 800), ("avx2", 2400), ("avx512_vnni", 4000)])
def test_integers_on_every_instruction_set_up_to_this_machines(capability: str, count: int) -> None:
    if ORDER.index(capability) > ORDER.index(leanmark_kernels.instruction_set()):
        pytest.skip(f"this machine stops at {leanmark_kernels.instruction_set()}")
    assert run(count, "integer_shapes.py", ATEN_CPU_CAPABILITY=capability) == f"{capability} {count}"


@pytest.mark.slow
def test_integers_without_native_code() -> None:
    assert run(90, "integer_shapes.py", LEANMARK_NATIVE="0") == "reference 90"


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose native code reports every access outside of a tensor."""
    where = tmp_path_factory.mktemp("sanitized")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={where}", f"--build-temp={where}/o"],
        cwd=ROOT,
        env={**os.environ, "LEANMARK_SANITIZE": "1"},
        check=True,
        capture_output=True,
        timeout=1200,
    )
    shutil.copytree(
        ROOT / "kernels/leanmark_kernels",
        where / "leanmark_kernels",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
        dirs_exist_ok=True,
    )
    return where


def runtime(name: str) -> str | None:
    """The compiler's own copy of a library, which must be the first that the process loads."""
    if shutil.which("g++") is None:
        return None
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip() if "/" in found.stdout else None


@pytest.mark.slow
@needs_native
@pytest.mark.skipif(runtime("libasan.so") is None, reason="needs g++ with AddressSanitizer")
@pytest.mark.parametrize("program", ["random_shapes.py", "integer_shapes.py", "sparse_shapes.py"])
def test_no_byte_outside_of_a_tensor_is_touched(sanitized: Path, program: str) -> None:
    """Tensors come from malloc, which the sanitizer surrounds with guard regions."""
    assert run(
        1000,
        program,
        LD_PRELOAD=f"{runtime('libasan.so')} {runtime('libstdc++.so')}",
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter leaks on exit by design
        PYTHONPATH=str(sanitized),
        PYTHONMALLOC="malloc",
    ) == (f"{leanmark_kernels.instruction_set()} 1000")
