"""What one step does, counted where nothing is timed: operators by the backend, instructions by the
processor."""

from __future__ import annotations

import gc
from dataclasses import replace

from leanmark.backends.base import Executable
from leanmark.errors import MeterError
from leanmark.machine.counters import METRICS, Counted
from leanmark.meters.instructions import Instructions

STEPS = 8
"""Steps per reading of the processor's counter."""


def count(executable: Executable, threads: int) -> Counted:
    """The backend's counts of a warm step, and the instructions of it where the processor tells."""
    found = _counted(executable)
    alone = threads == 1
    reason = Instructions().unavailable() if alone else "the counter sees one thread of several"
    if reason is None:
        try:
            return replace(found, counts={**found.counts, "instructions": _instructions(executable)})
        except MeterError as error:
            reason = str(error)
    return replace(found, missing={**found.missing, "instructions": reason})


def _counted(executable: Executable) -> Counted:
    """Some models take no looking at: that costs these numbers and no others."""
    try:
        return executable.counted()
    except Exception as error:
        reason = f"counting failed: {type(error).__name__}: {error}"
        return Counted(counts={}, missing=dict.fromkeys(METRICS[:-1], reason))


def _instructions(executable: Executable) -> int:
    meter = Instructions()
    gc.collect()
    gc.disable()  # a collection would fall into some readings and not into others
    try:
        token = meter.start()
        for _ in range(STEPS):
            executable.step()
        stopped = meter.stop(token)
    finally:
        gc.enable()
    return round(stopped().value / STEPS)
