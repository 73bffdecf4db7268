"""The other commit of a run against one, and what it changes in who is compared to whom. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leanmark.record import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """``ref`` as it was asked for, ``commit`` the first 12 digits of what it meant then."""

    ref: str
    commit: str

    def __str__(self) -> str:
        return self.commit if self.commit.startswith(self.ref) else f"{self.ref} ({self.commit})"


def reference_among(case: Case, measured: Iterable[Case]) -> Case | None:
    """What ``case`` is compared to: the same at the other commit where that was measured too, else the
    unchanged model. A case of the other commit is what others are compared to: it has none."""
    if case.commit is not None:
        return None
    twins = (one for one in measured if one.commit is not None and not case.sentinel)
    return next((twin for twin in twins if replace(twin, commit=None) == case), case.reference())
