"""A clock that moves only when told to."""

from __future__ import annotations

from dataclasses import dataclass

from leanmark.meters.ticker import Act, Stop


@dataclass(slots=True, eq=False)
class _Job:
    act: Act
    due_s: float


class VirtualClock:
    """Time in seconds. Give the clock itself as ``clock``, and ``repeat`` where a meter wants to act.

    ``tick_s`` passes at every look at it, so that a loop that waits for a change comes to an end.
    """

    def __init__(self, start_s: float = 1000.0, tick_s: float = 1e-7) -> None:
        self.now_s = start_s
        self._tick_s = tick_s
        self._jobs: list[_Job] = []
        self._acting = False

    def __call__(self) -> float:
        self.now_s += self._tick_s
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass; everything that falls due on the way is done at its time."""
        until_s = self.now_s + seconds
        if self._acting:  # what an act spends on a slow device
            self.now_s = until_s
            return
        self._acting = True
        try:
            while job := min(self._jobs, key=lambda job: job.due_s, default=None):
                if job.due_s > until_s:
                    break
                self.now_s = max(self.now_s, job.due_s)
                job.due_s = self.now_s + max(job.act(), self._tick_s)
        finally:
            self._acting = False
        self.now_s = max(self.now_s, until_s)

    def repeat(self, act: Act, first_s: float) -> Stop:
        """See ``leanmark.meters.ticker.Repeat``."""
        job = _Job(act, self.now_s + first_s)
        self._jobs.append(job)

        def stop() -> None:
            self._jobs = [other for other in self._jobs if other is not job]

        return stop
