"""Where the cases of scripts/gpu_kernels.py run: a GPU, or, to rehearse without one, this processor."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from leanmark.errors import MeterError
from leanmark.meters.nvml import Gpu
from leanmark.meters.window import update_period

FLUSH_BYTES = 256 * 2**20
HOLD_CYCLES = 400_000
"""A fifth of a millisecond and more for which the GPU is held back while the host queues what is timed."""

SENSORS = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active,driver_version"

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Counter:
    """``read`` gives millijoules, which change every ``period_s``."""

    read: Callable[[], int]
    period_s: float


class Stage:
    """The first GPU that may be used."""

    device = torch.device("cuda")
    large = True
    """Whether problems are of the size of real layers."""

    def graph(self, call: Callable[[], Tensor], times: int) -> Call:
        """``times`` calls as one CUDA graph, warmed up on a stream of its own as capturing asks for."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            for _ in range(times):
                call()
        return captured.replay

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def hold(self) -> None:
        torch.cuda._sleep(HOLD_CYCLES)

    def flush(self) -> None:
        self._scratch.zero_()

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two marks, after ``synchronize``."""
        return float(begin.elapsed_time(end)) * 1e-3

    def release(self) -> None:
        torch.cuda.empty_cache()

    @cached_property
    def counter(self) -> Counter | str:
        """The energy counter of the board, or why there is none."""
        gpu = Gpu(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        try:
            gpu.open()
            return Counter(gpu.energy_mj, update_period(gpu.energy_mj, time.perf_counter, time.sleep))
        except MeterError as error:
            return str(error)

    def machine(self) -> dict[str, Any]:
        properties = torch.cuda.get_device_properties(0)
        return {
            "gpu": properties.name,
            "uuid": str(properties.uuid),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "torch": torch.__version__,
            "triton": version("triton"),
        }

    def sensors(self) -> str:
        """What nvidia-smi says of clocks, temperature, power and throttling, or why that is unknown."""
        uuid = torch.cuda.get_device_properties(0).uuid
        command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={SENSORS}", "--format=csv"]
        try:
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
        except (OSError, subprocess.SubprocessError) as missing:
            return f"unknown: {missing}"

    @cached_property
    def _scratch(self) -> Tensor:
        return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device)


class Rehearsal(Stage):
    """This processor: everything is done as on a GPU, on small problems, and no number means anything.

    Its counter counts 100 W, in steps of a millisecond.
    """

    device = torch.device("cpu")
    large = False

    def graph(self, call: Callable[[], Tensor], times: int) -> Call:
        def replay() -> None:
            for _ in range(times):
                call()

        replay()
        return replay

    def synchronize(self) -> None:
        """This processor is never behind."""

    def hold(self) -> None:
        """It queues nothing."""

    def flush(self) -> None:
        """Small problems stay in its caches."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: Any, end: Any) -> float:
        return max(float(end - begin), 1e-9)

    def release(self) -> None:
        """It keeps no memory."""

    @cached_property
    def counter(self) -> Counter | str:
        return Counter(lambda: int(time.perf_counter() * 1000) * 100, 1e-3)

    def machine(self) -> dict[str, Any]:
        return {"gpu": "none: a rehearsal on the processor", "torch": torch.__version__}

    def sensors(self) -> str:
        return "a rehearsal"
