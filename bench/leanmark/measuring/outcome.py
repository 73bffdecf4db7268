"""What becomes of a case that could not be measured: a record with a status and a reason."""

from __future__ import annotations

from leanmark.errors import (
    Implausible,
    LeanmarkError,
    OutOfMemory,
    OutOfTime,
    TookNoEffect,
    Unsupported,
    WorkerRaised,
)
from leanmark.record import Case, Measurement, Pass, Status


def failure(run: str, case: Case, pass_name: Pass, work: str, error: LeanmarkError) -> Measurement:
    """The record of ``error``: skipped where unsupported, invalid where none can be right, else failed."""
    return Measurement(
        run=run,
        case=case,
        pass_name=pass_name,
        status=_status(error),
        work=work,
        reason=_reason(error),
        traceback=error.traceback if isinstance(error, WorkerRaised) else None,
    )


def _reason(error: LeanmarkError) -> str:
    if isinstance(error, OutOfTime):  # it is supported: nobody looked
        return str(error)
    for kind, name in ((Unsupported, "unsupported"), (OutOfMemory, "out_of_memory")):
        if isinstance(error, kind):
            return f"{name}: {error}"
    return str(error)


def _status(error: LeanmarkError) -> Status:
    if isinstance(error, Unsupported):
        return "skipped"
    if isinstance(error, TookNoEffect | Implausible):
        return "invalid"
    return "failed"
