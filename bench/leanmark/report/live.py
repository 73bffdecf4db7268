"""Progress while a run lasts: a bar on a terminal, one line for each step elsewhere. On stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from leanmark import units
from leanmark.progress import Progress as Step

_TRUSTED_SHARE = 0.02
"""Before this much is done, the time left is anybody's guess."""


def left_s(step: Step, elapsed_s: float) -> float | None:
    """Seconds left at the pace so far; ``None`` while it is too early to tell."""
    share = step.done / step.total
    if share < _TRUSTED_SHARE:
        return None
    return elapsed_s * (1 - share) / share


def describe(step: Step, elapsed_s: float) -> str:
    """One line: ``leanmark  12 %  cnn: inference, batch 1  (about 2 min 5 s left)``."""
    left = left_s(step, elapsed_s)
    tail = "" if left is None else f"  (about {units.guess(left)} left)"
    return f"leanmark {step.done / step.total:4.0%}  {step.doing}{tail}"


class Live:
    """Shows the progress of a campaign; a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("leanmark"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            refresh_per_second=2,  # the parent must sleep while a worker measures
        )
        self._task = self._bar.add_task("starting", total=1.0)

    def notify(self, step: Step) -> None:
        elapsed = time.monotonic() - self._started
        if not self._console.is_terminal:
            self._console.print(describe(step, elapsed), highlight=False, soft_wrap=True)
            return
        left = left_s(step, elapsed)
        tail = "" if left is None else f"[dim] · about {units.guess(left)} left"
        self._bar.update(self._task, total=step.total, completed=step.done, description=f"{step.doing}{tail}")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:  # elsewhere it never started, and stopping would print an empty line
            self._bar.stop()
