"""What goes wrong in a worker: told to the launcher as a message, and an error again there."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Literal

from leanmark.errors import (
    Implausible,
    LeanmarkError,
    OutOfMemory,
    TookNoEffect,
    Unsupported,
    UsageError,
    WorkerRaised,
)
from leanmark.protocol.messages import Failure

_Known = Literal["unsupported", "usage", "took_no_effect", "implausible", "out_of_memory"]

_KNOWN: Mapping[_Known, type[LeanmarkError]] = {
    "unsupported": Unsupported,
    "usage": UsageError,
    "took_no_effect": TookNoEffect,
    "implausible": Implausible,
    "out_of_memory": OutOfMemory,
}
"""Their message says enough; of anything else the traceback is kept."""


def as_message(error: BaseException) -> Failure:
    """The reply that names ``error``, whatever it is: a user's model may raise anything."""
    if isinstance(error, MemoryError):
        return Failure("out_of_memory", str(error) or "of the host", "")
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which may not be imported here
        return Failure("out_of_memory", str(error).partition("\n")[0], "")
    for kind, known in _KNOWN.items():
        if isinstance(error, known):
            return Failure(kind, str(error), "")
    summary = f"{type(error).__name__}: {error}".strip()
    return Failure("raised", summary, "".join(traceback.format_exception(error)))


def as_error(failure: Failure) -> LeanmarkError:
    """What the launcher raises in its place."""
    if failure.kind == "raised":
        return WorkerRaised(failure.summary, failure.traceback)
    return _KNOWN[failure.kind](failure.summary)
