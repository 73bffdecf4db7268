"""Finds and loads the compiled operators, once, and says why when there are none."""

from __future__ import annotations

import os
import warnings
from functools import cache
from importlib.util import find_spec

import torch

SWITCH = "LEANMARK_NATIVE"
"""Environment variable; ``0`` leaves the compiled operators out, when building and when running."""

BUILD = "pip install --no-build-isolation -e ."


def available() -> bool:
    """Whether the compiled operators are loaded."""
    return why_unavailable() is None


@cache
def why_unavailable() -> str | None:
    """Why the compiled operators are not loaded, or ``None`` when they are."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0 is set"
    spec = find_spec("leanmark_kernels._C")
    if spec is None or spec.origin is None:
        return "this installation was built without them"
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:
        return f"{spec.origin} cannot be loaded ({error})"
    return None


def instruction_set() -> str:
    """What the CPU operators use: ``avx512_vnni``, ``avx512``, ``avx2`` or ``default`` (portable C++), else
    ``reference``.

    The environment variable ``ATEN_CPU_CAPABILITY``, which torch's own kernels obey, can lower it; its
    ``avx512`` is without VNNI.
    """
    if not available():
        return "reference"
    name: str = torch.ops.leanmark.cpu_capability()
    return name


@cache
def warn_slow_reference() -> None:
    """Say once that the operators run their reference, and how to build the fast ones.

    Call it only where the compiled operators are not available.
    """
    warnings.warn(
        f"leanmark_kernels runs its slower reference in plain torch: {why_unavailable()}. "
        f"To build the native operators: unset {SWITCH}, then run `{BUILD}` (needs a C++ compiler).",
        stacklevel=3,
    )
