"""What can be named on the command line, and whether it can be used here. Loads rows, not torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from leanmark import registry
from leanmark.registry import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """``unavailable`` is the reason why it cannot be used here, ``None`` where it can."""

    kind: Kind
    name: str
    summary: str
    unavailable: str | None


def items(kind: Kind) -> Iterator[Item]:
    """Every row of ``kind`` with its availability on this machine."""
    for name, row in registry.rows(kind).items():
        yield Item(kind=kind, name=name, summary=row.summary, unavailable=_unavailable(kind, name))


def _unavailable(kind: Kind, name: str) -> str | None:
    if kind in ("backends", "devices", "meters"):
        reason: str | None = registry.load(kind, name)().unavailable()
        return reason
    missing = [package for package in _needs(kind, name) if find_spec(package) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def _needs(kind: Kind, name: str) -> tuple[str, ...]:
    """What a workload or technique imports when it is used; workloads cannot be loaded without torch."""
    if kind == "workloads":
        return ("torch",)
    if kind == "techniques":
        packages: tuple[str, ...] = registry.load(kind, name).packages
        return packages
    return ()
