"""The other commit of a run against one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """``ref`` as it was asked for, ``commit`` the first 12 digits of what it meant then."""

    ref: str
    commit: str

    def __str__(self) -> str:
        return self.commit if self.commit.startswith(self.ref) else f"{self.ref} ({self.commit})"
