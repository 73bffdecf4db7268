"""One NVIDIA GPU from inside a worker, through ``torch.cuda`` and nothing else of CUDA.

The worker sees one GPU only, chosen by its UUID in ``CUDA_VISIBLE_DEVICES``, so it is always ``cuda:0``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leanmark.devices.base import Accelerator, Step
from leanmark.errors import Unsupported

FLUSH_BYTES = 256 * 2**20
"""At least this much is written to empty the L2 cache, which has 50 MB on an H200 (nvbench: twice L2)."""

RELEASE_SHARE = 0.02
"""Of the board's memory: what a variant may keep unused while others have their turn."""

_WARM_UPS = 3
"""Steps before a recording, as torch's notes on CUDA graphs ask for; on a side stream like these."""


class TorchCuda(Accelerator):
    """``cuda`` is the module ``torch.cuda``, or a fake of it (``leanmark.testing.torch_cuda``)."""

    name = "cuda"
    queues = True

    def __init__(self, cuda: Any = None) -> None:
        if cuda is None:
            import torch

            cuda = torch.cuda
        self._cuda = cuda
        self._properties = cuda.get_device_properties(0)
        self._scratch: Any = None

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def busy_s(self, step: Step, times: int, host_s: float) -> float | None:
        """Between two events, while the device is held back until the host has asked for everything.

        Without that a device that is faster than its host waits for launches between the events. The queue
        of a device holds about a thousand launches, and one that is full makes the host wait for the device:
        then fewer steps are asked for. A single step that does not fit, or waits for the device itself, has
        launches in its time, which is then an upper bound.
        """
        while True:
            begun_early, seconds = self._held_back(step, times, 1.5 * times * host_s)
            if not begun_early or times == 1:
                return seconds / times
            times //= 2

    def _held_back(self, step: Step, times: int, hold_s: float) -> tuple[bool, float]:
        """Whether the device began before the host had asked for all, and the seconds between the events."""
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._cuda.synchronize()
        self._cuda._sleep(round(hold_s * self._properties.clock_rate * 1e3))  # in cycles; kHz
        start.record()
        for _ in range(times):
            step()
        begun_early = start.query()
        end.record()
        self._cuda.synchronize()
        return begun_early, float(start.elapsed_time(end)) * 1e-3

    def flush_cache(self) -> None:
        if self._scratch is None:
            size = max(FLUSH_BYTES, 4 * self._properties.L2_cache_size)
            self._scratch = self._cuda.ByteTensor(size)
        self._scratch.zero_()

    def release(self) -> None:
        unused = self._cuda.memory_reserved() - self._cuda.memory_allocated()
        if unused > RELEASE_SHARE * self._properties.total_memory:
            self._cuda.empty_cache()

    def start_memory(self) -> None:
        self._cuda.synchronize()
        self._cuda.reset_peak_memory_stats()

    def memory(self) -> Mapping[str, int]:
        """The allocator's peaks, and what the board has in use by everybody: contexts and libraries too.

        ``gpu_fragments_bytes`` is the least that was reserved in vain while the most was allocated.
        """
        self._cuda.synchronize()
        free, total = self._cuda.mem_get_info()
        allocated, reserved = self._cuda.max_memory_allocated(), self._cuda.max_memory_reserved()
        return {
            "gpu_peak_memory_bytes": allocated,
            "gpu_reserved_memory_bytes": reserved,
            "gpu_fragments_bytes": reserved - allocated,
            "gpu_board_memory_bytes": total - free,
        }

    def capture(self, step: Step) -> Step:
        side = self._cuda.Stream()
        side.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(side):
            for _ in range(_WARM_UPS):
                step()
        self._cuda.current_stream().wait_stream(side)
        graph = self._cuda.CUDAGraph()
        try:
            with self._cuda.graph(graph):
                step()
        except self._cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise Unsupported(f"this step cannot be recorded as a CUDA graph: {reason}") from error
        replay: Step = graph.replay
        return replay

    def facts(self) -> Mapping[str, str]:
        major, minor = self._properties.major, self._properties.minor
        return {
            "gpu": self._properties.name,
            "gpu_uuid": f"GPU-{self._properties.uuid}",
            "compute_capability": f"{major}.{minor}",
        }
