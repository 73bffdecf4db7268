"""What is said about a number that travels with it. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

NO_COUNTER = "no-counter"
"""Code of the finding that says why energy is only estimated, by counter, and what would help."""

NOT_STEADY = "not-steady"
"""Code of the finding that processes were still warming up: it takes the verdict away."""

DOMAIN_LOST = "domain-lost"
"""Code of the finding that a part of the machine is in no sum, since its counter told nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A doubt or a fact that travels with the number. ``code`` is for machines.

    ``without`` is a part of the machine that an energy is without, such as ``package-0/dram``.
    """

    code: str
    message: str
    without: str | None = None


def left_out(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The parts of the machine that an energy is without: two are compared only where these are the same."""
    return tuple(sorted({one.without for one in findings if one.without is not None}))
