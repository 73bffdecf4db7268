"""``torch.cuda`` with a GPU whose truth is known: work is asked for now, done later, on a virtual clock."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from leanmark.testing.clock import VirtualClock

QUEUE = 1024
FREE_BYTES = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    name: str = "NVIDIA H200"
    uuid: str = "00000000-0000-0000-0000-000000000000"
    major: int = 9
    minor: int = 0
    total_memory: int = 1000
    L2_cache_size: int = 50 * 2**20
    clock_rate: int = 1_980_000


class FakeTorchCuda:
    """Give it as ``TorchCuda(fake)``; a model is whatever calls :meth:`launch`.

    ``log`` lists what happened to the device. A launch takes ``cold_s`` more where its cache is empty.
    ``QUEUE`` launches can wait for the device; for the next one the host waits too.
    """

    class OutOfMemoryError(RuntimeError):
        pass

    def __init__(self, clock: VirtualClock, *, cold_s: float = 0.0) -> None:
        self.clock = clock
        self._waiting: deque[float] = deque(maxlen=QUEUE)
        self.log: list[str] = []
        self.properties = Properties()
        self.allocated = self.reserved = 0
        self._idle_at_s = 0.0
        self._cold_s = cold_s
        self._warm = True
        self._peak = (0, 0)
        self._recording: list[Callable[[], None]] | None = None

    def launch(self, seconds: float, host_s: float = 0.0) -> None:
        """Ask for ``seconds`` of work, which takes the host ``host_s``."""
        if self._recording is not None:
            self._recording.append(lambda: self._queue(seconds))
            return
        self.clock.sleep(host_s)
        self._queue(seconds + (0.0 if self._warm else self._cold_s))
        self._warm = True

    def hold(self, allocated: int, reserved: int) -> None:
        """The allocator now has so many bytes in use, of so many reserved."""
        self.allocated, self.reserved = allocated, reserved
        self._peak = (max(self._peak[0], allocated), max(self._peak[1], reserved))

    # what leanmark uses of torch.cuda

    def synchronize(self) -> None:
        self.log.append("synchronize")
        self.clock.sleep(max(0.0, self._idle_at_s - self.clock.now_s))

    def _sleep(self, cycles: int) -> None:
        self._queue(cycles / (self.properties.clock_rate * 1e3))

    def Event(self, enable_timing: bool = False) -> FakeEvent:  # noqa: N802
        return FakeEvent(self)

    def get_device_properties(self, device: int) -> Properties:
        return self.properties

    def ByteTensor(self, size: int) -> Scratch:  # noqa: N802
        return Scratch(self, size)

    def memory_allocated(self) -> int:
        return self.allocated

    def memory_reserved(self) -> int:
        return self.reserved

    def max_memory_allocated(self) -> int:
        return self._peak[0]

    def max_memory_reserved(self) -> int:
        return self._peak[1]

    def reset_peak_memory_stats(self) -> None:
        self._peak = (self.allocated, self.reserved)

    def mem_get_info(self) -> tuple[int, int]:
        return FREE_BYTES - self.reserved, self.properties.total_memory

    def empty_cache(self) -> None:
        self.log.append("empty_cache")
        self.reserved = self.allocated

    def Stream(self) -> FakeStream:  # noqa: N802
        return FakeStream()

    def current_stream(self) -> FakeStream:
        return FakeStream()

    def stream(self, stream: FakeStream) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def CUDAGraph(self) -> FakeGraph:  # noqa: N802
        return FakeGraph(self)

    @contextlib.contextmanager
    def graph(self, graph: FakeGraph) -> Iterator[None]:
        self._recording = graph.work
        try:
            yield
        finally:
            self._recording = None

    def _queue(self, seconds: float) -> None:
        if len(self._waiting) == self._waiting.maxlen:  # each begins when the one before it ends
            self.clock.sleep(max(0.0, self._waiting[0] - self.clock.now_s))
        begin_s = max(self._idle_at_s, self.clock.now_s)
        self._waiting.append(begin_s)
        self._idle_at_s = begin_s + seconds


@dataclass(slots=True)
class FakeEvent:
    cuda: FakeTorchCuda
    at_s: float = 0.0

    def record(self) -> None:
        self.at_s = max(self.cuda._idle_at_s, self.cuda.clock.now_s)

    def query(self) -> bool:
        return self.at_s <= self.cuda.clock.now_s

    def elapsed_time(self, end: FakeEvent) -> float:
        """Milliseconds."""
        return (end.at_s - self.at_s) * 1e3


@dataclass(slots=True)
class Scratch:
    cuda: FakeTorchCuda
    size: int

    def zero_(self) -> None:
        self.cuda.log.append(f"flush {self.size}")
        self.cuda._warm = False


class FakeStream:
    def wait_stream(self, other: FakeStream) -> None:
        """Streams of this fake have one queue."""


@dataclass(slots=True)
class FakeGraph:
    """What was launched while it was recording is launched again at once."""

    cuda: FakeTorchCuda
    work: list[Any] = field(default_factory=list)

    def replay(self) -> None:
        self.cuda.log.append("replay")
        for launch in self.work:
            launch()
