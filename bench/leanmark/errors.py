"""Every error leanmark raises on purpose.

LeanmarkError
├── UsageError                what the user typed cannot be done; exit code 2
│   ├── UnknownName           no such workload, technique, backend, device or option; suggests the nearest
│   └── BadPlan               the plan as a whole makes no sense (nothing selected, budget too small)
├── Unsupported               this technique, backend or phase does not apply here; the case is skipped
├── TookNoEffect              the technique was applied and is not there; the case is INVALID
├── Implausible               what was timed or computed cannot be true; the case is INVALID
├── WorkerError               the process that measured a case did not finish; the case is failed
│   ├── WorkerDied            it exited or was killed (out of memory, segmentation fault)
│   ├── WorkerTimeout         it gave no answer in time
│   ├── OutOfMemory           it does not fit into the memory of its device: a result, not an accident
│   └── WorkerRaised          it raised; carries the traceback as text
├── DeviceBusy                another run measures on this device; the message says which
├── MeterError                a meter has no honest reading: no access, garbage, the device is gone
│   └── StuckCounter          its counter did not move, so nothing was measured
├── RecordError               a results file or folder cannot be used
│   ├── CorruptRecords        a line is not a record
│   ├── NewerSchema           written by a newer leanmark
│   └── UnwritableResults     the folder cannot be written, or the disk is full
├── CannotBuild               the other commit of `--against` cannot be built here
└── NotComparable             two records were made on different machines, software or work
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LeanmarkError(Exception):
    """Base of all errors below; ``exit_code`` is what the command line ends with."""

    exit_code = 1


class UsageError(LeanmarkError):
    exit_code = 2


class UnknownName(UsageError):
    """``name`` is none of ``known``; the message names the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(known)
        near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(choices)}."
        super().__init__(f"Unknown {kind} '{name}'. {hint}")
        self.kind = kind
        self.name = name
        self.nearest = tuple(near)


class BadPlan(UsageError):
    pass


class Unsupported(LeanmarkError):
    pass


class OutOfTime(Unsupported):
    """Nobody looked: the case is skipped, and a gate has not judged it."""

    def __init__(self) -> None:
        super().__init__("the time budget ended before its turn came")


class TookNoEffect(LeanmarkError):
    pass


class Implausible(LeanmarkError):
    pass


class WorkerError(LeanmarkError):
    pass


class WorkerDied(WorkerError):
    pass


class WorkerTimeout(WorkerError):
    pass


class OutOfMemory(WorkerError):
    pass


class WorkerRaised(WorkerError):
    """``summary`` is the last line of the worker's ``traceback``."""

    def __init__(self, summary: str, traceback: str) -> None:
        super().__init__(summary)
        self.traceback = traceback


class DeviceBusy(LeanmarkError):
    pass


class MeterError(LeanmarkError):
    pass


class StuckCounter(MeterError):
    pass


class RecordError(LeanmarkError):
    pass


class UnreadableRecords(RecordError, UsageError):
    """No file of that name, or no right to read it: no case failed."""


class CorruptRecords(RecordError):
    pass


class NewerSchema(RecordError):
    pass


class UnwritableResults(RecordError):
    pass


class CannotBuild(LeanmarkError):
    pass


class NotComparable(LeanmarkError):
    pass
