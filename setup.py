"""Build the native extension ``leanmark_kernels._C``; everything else is in pyproject.toml.

``LEANMARK_NATIVE=0`` builds without a compiler: the operators then run their slower reference.
``LEANMARK_SANITIZE=1`` is for the tests: every access outside of a tensor ends the process.
"""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from setuptools import setup

STABLE_ABI = "0x020a000000000000"  # torch 2.10: one binary for it and every later release
OTHERWISE = "Or set LEANMARK_NATIVE=0 to install without native kernels (they then run slower)."

SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "--param=asan-instrumentation-with-call-threshold=0",  # checks that are calls take less time to compile
]


def native() -> dict[str, Any]:
    """Arguments of ``setup`` that add the extension."""
    try:
        from torch.utils import cpp_extension
    except ImportError as error:
        raise SystemExit(
            f"leanmark: building the native kernels needs torch, which cannot be imported here ({error}). "
            f"Install torch first and use pip's --no-build-isolation. {OTHERWISE}"
        ) from error
    compiler = cpp_extension.get_cxx_compiler()
    if shutil.which(shlex.split(compiler)[0]) is None:
        raise SystemExit(
            f"leanmark: building the native kernels needs the C++ compiler '{compiler}', which is "
            f"not on PATH. Install it (Debian: apt-get install g++) or name another in CXX. {OTHERWISE}"
        )
    sanitize = SANITIZE if os.environ.get("LEANMARK_SANITIZE") == "1" else []
    extension = cpp_extension.CppExtension(
        "leanmark_kernels._C",
        sorted(str(source) for source in Path("kernels/csrc").rglob("*.cpp")),
        include_dirs=[str(Path("kernels/csrc").resolve())],
        py_limited_api=True,
        extra_compile_args=[
            f"-DTORCH_TARGET_VERSION={STABLE_ABI}",
            "-O0" if sanitize else "-O3",  # hardly any of the time under sanitizers is spent in kernels
            "-g0",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            *sanitize,
        ],
        extra_link_args=sanitize,
    )
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": cpp_extension.BuildExtension},
        "options": {"bdist_wheel": {"py_limited_api": "cp311"}},
    }


setup(**({} if os.environ.get("LEANMARK_NATIVE") == "0" else native()))
