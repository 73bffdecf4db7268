"""Which case another is compared to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from leanmark.record import Case


def reference_among(case: Case, measured: Iterable[Case]) -> Case | None:
    """What ``case`` is compared to: the same at the other commit where that was measured too, else the
    unchanged model. A case of the other commit is what others are compared to: it has none."""
    if case.commit is not None:
        return None
    twins = (one for one in measured if one.commit is not None and not case.sentinel)
    return next((twin for twin in twins if replace(twin, commit=None) == case), case.reference())
