"""Acting again and again beside the work: what meters do that must read while a window is open."""

from __future__ import annotations

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

    A thread per window would cost more than a window may: starting one takes longer than a reading.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: dict[int, _Job] = {}
        self._names = count()
        self._wakes_s = float("inf")
        self._thread: threading.Thread | None = None

    def repeat(self, act: Act, first_s: float) -> Stop:
        name = next(self._names)

        def stop() -> None:
            with self._changed:
                self._jobs.pop(name, None)

        with self._changed:
            self._jobs[name] = job = _Job(act, time.monotonic() + first_s)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="leanmark-meter", daemon=True)
                self._thread.start()
            elif job.due_s < self._wakes_s:
                self._changed.notify()
        return stop

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._jobs.clear()
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        with self._changed:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                for job in list(self._jobs.values()):
                    if job.due_s <= now:
                        job.due_s = now + job.act()
                self._wakes_s = min((job.due_s for job in self._jobs.values()), default=float("inf"))
                wait_s = self._wakes_s - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
