"""Times calls against one another on a GPU, by its own clock, and says which GPU that was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

import torch

from leanmark_kernels.triton.tuning import FLUSH_BYTES, HOLD_CYCLES


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds per call over ``rounds``, forward and backward in turn, of the current device's work.

    Between calls L2 is emptied, since the layers between two calls of one would do so, and the GPU is held
    back until the host has asked for everything: what the host takes is not in it.
    """
    for call in calls.values():
        call()  # compiles, tunes, allocates
    scratch = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in list(calls)[:: 1 if turn % 2 == 0 else -1]:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            scratch.zero_()
            torch.cuda._sleep(HOLD_CYCLES)
            begin.record()
            calls[name]()
            end.record()
            marks[name].append((begin, end))
        torch.cuda.synchronize()
    return {
        name: median(float(begin.elapsed_time(end)) for begin, end in pairs) * 1e-3
        for name, pairs in marks.items()
    }


def machine() -> dict[str, str | int]:
    """What timings on the current device depend on besides the work itself."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "triton": _triton(),
    }


def _triton() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "none"
