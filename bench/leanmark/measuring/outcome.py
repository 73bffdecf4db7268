"""What becomes of a case that could not be measured: a record with a status and a reason."""

from __future__ import annotations

from leanmark.errors import LeanmarkError, TookNoEffect, Unsupported, WorkerRaised
from leanmark.record import Case, Measurement, Pass, Status


def failure(run: str, case: Case, pass_name: Pass, work: str, error: LeanmarkError) -> Measurement:
    """The record of ``error``: skipped where unsupported, invalid where it took no effect, else failed."""
    return Measurement(
        run=run,
        case=case,
        pass_name=pass_name,
        status=_status(error),
        work=work,
        reason=f"unsupported: {error}" if isinstance(error, Unsupported) else str(error),
        traceback=error.traceback if isinstance(error, WorkerRaised) else None,
    )


def _status(error: LeanmarkError) -> Status:
    if isinstance(error, Unsupported):
        return "skipped"
    if isinstance(error, TookNoEffect):
        return "invalid"
    return "failed"
