"""Acting again and again beside the work: what meters do that must read while a window is open."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Protocol

Act = Callable[[], float]
"""Does something and says in how many seconds it wants to be called again. Must not raise."""

Stop = Callable[[], None]


class Repeat(Protocol):
    """Call ``act`` in ``first_s`` seconds and then whenever it asks for, until the returned stop.

    After the stop has returned, ``act`` neither runs nor will run.
    """

    def __call__(self, act: Act, first_s: float) -> Stop: ...


@dataclass(slots=True)
class _Job:
    act: Act
    due_s: float


class Ticker:
    """One sleeping daemon thread for all acts of a meter; it exists from the first act on.

    A thread per window would cost more than a window may: starting one takes longer than a reading. The
    bell is a bare lock, since ``threading.Condition`` doubles what it costs to wake up.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._jobs: dict[int, _Job] = {}
        self._names = count()
        self._wakes_s = math.inf
        self._thread: threading.Thread | None = None

    def repeat(self, act: Act, first_s: float) -> Stop:
        name = next(self._names)

        def stop() -> None:
            with self._turn:
                self._jobs.pop(name, None)

        with self._turn:
            due_s = time.monotonic() + first_s
            self._jobs[name] = _Job(act, due_s)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leanmark-meter", daemon=True)
                self._thread.start()
            elif due_s < self._wakes_s:
                self._ring()
        return stop

    def close(self) -> None:
        """End the thread."""
        with self._turn:
            thread, self._thread = self._thread, None
            self._jobs.clear()
            self._ring()
        if thread is not None:
            thread.join()

    def _ring(self) -> None:
        self._wakes_s = -math.inf
        if self._bell.locked():
            self._bell.release()

    def _run(self) -> None:
        while True:
            with self._turn:
                if self._thread is not threading.current_thread():
                    return
                self._wakes_s = min((self._do(job) for job in self._jobs.values()), default=math.inf)
                wait_s = self._wakes_s - time.monotonic()
            if wait_s > 0:
                self._bell.acquire(timeout=min(wait_s, threading.TIMEOUT_MAX))

    @staticmethod
    def _do(job: _Job) -> float:
        """When the job is due next."""
        now_s = time.monotonic()
        if job.due_s <= now_s:
            job.due_s = now_s + job.act()
        return job.due_s
