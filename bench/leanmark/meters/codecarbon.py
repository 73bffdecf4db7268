"""codecarbon's estimate of energy: a model of power from load, never a measurement.

It is the labelled fallback where no counter can be read. Every argument that matters is passed, and the
configuration files and environment variables that could change the result are kept out of its sight.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import uuid
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from leanmark.meters.base import Meter, Reading, Stopped
from leanmark.record import Provenance

_JOULES_PER_KWH = 3.6e6


class CodeCarbon(Meter[tuple[str, float]]):
    """Energy of CPU and memory of the whole machine, in joules, by codecarbon's load model."""

    unit = "j"
    scope = "machine"
    provenance = Provenance.ESTIMATED_MODEL
    covers = "processor"
    resolution = 0.0
    min_window_s = 0.1

    def __init__(self) -> None:
        self._tracker: Any = None

    def unavailable(self) -> str | None:
        if find_spec("codecarbon") is None:
            return "the package codecarbon is not installed"
        return None

    def start(self) -> tuple[str, float]:
        if self._tracker is None:
            self._tracker = _make_tracker()
        task = uuid.uuid4().hex  # codecarbon refuses to reuse a task's name
        with _quiet():
            self._tracker.start_task(task)
        return task, time.perf_counter()

    def stop(self, token: tuple[str, float]) -> Stopped:
        task, started = token
        with _quiet():
            data = self._tracker.stop_task(task)
        elapsed = time.perf_counter() - started
        if data is None:
            raise RuntimeError("codecarbon gave no result for a task; its log says why")
        return partial(Reading, value=data.energy_consumed * _JOULES_PER_KWH, duration_s=elapsed)

    def close(self) -> None:
        """End codecarbon's background threads."""
        if self._tracker is not None:
            with _quiet():
                self._tracker.stop()
            self._tracker = None


def _make_tracker() -> Any:
    with _quiet(), _no_configuration():
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(
            # only joules are taken from it; grams are computed on reading, with a stated intensity
            country_iso_code="USA",
            project_name="leanmark",
            measure_power_secs=15,
            tracking_mode="machine",
            output_methods=[],
            log_level="critical",
            pue=1.0,
            gpu_ids=[],
            force_mode_cpu_load=True,
            allow_multiple_runs=True,
        )
        warm = uuid.uuid4().hex  # its first task takes a second: it reads the machine with subprocesses
        tracker.start_task(warm)
        if tracker.stop_task(warm) is None:
            raise RuntimeError("codecarbon could not be set up; its log says why")
        return tracker


@contextlib.contextmanager
def _no_configuration() -> Iterator[None]:
    """Hide ``CODECARBON_*`` and ``.codecarbon.config``, here and at home, while the tracker is made.

    Both would set what no argument does: a watt of the processor, say.
    """
    from codecarbon import emissions_tracker

    module: Any = emissions_tracker  # its annotations do not export what it imports
    read = module.get_hierarchical_config
    module.get_hierarchical_config = dict
    try:
        yield
    finally:
        module.get_hierarchical_config = read


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep file descriptor 1 clean (importing codecarbon can print there from C) and its log to errors.

    Its own ``log_level`` applies only after the first lines.
    """
    logger = logging.getLogger("codecarbon")
    logger.addFilter(_is_error)
    sys.stdout.flush()
    saved = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    try:
        yield
    finally:
        logger.removeFilter(_is_error)
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
        os.close(silent)


def _is_error(entry: logging.LogRecord) -> bool:
    return entry.levelno >= logging.ERROR
