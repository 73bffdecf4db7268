"""What `list`, `compare` and `doctor` print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from leanmark import units
from leanmark.catalogue import Item
from leanmark.doctor import Diagnosis
from leanmark.reading.compare import pairing
from leanmark.reading.gate import Ruling
from leanmark.record import Case, Comparison, Environment

_NAMED = 6
"""Cases that one reason is told of by name."""

_LEVELS = {"ok": ("ok", "green"), "warn": ("!", "yellow"), "unknown": ("?", "dim")}


def catalogue(kind: str, items: Sequence[Item], console: Console) -> None:
    """One block of `leanmark list`."""
    grid = Grid(box=None, pad_edge=False, show_header=False)
    for item in items:
        state = Text("") if item.unavailable is None else Text(f"unavailable: {item.unavailable}", "red")
        grid.add_row(Text(f"  {item.name}", "bold"), Text(item.summary), state)
    console.print(Text(kind, "underline"))
    console.print(grid)
    console.print()


def comparisons(
    found: Iterable[Comparison], uncompared: Iterable[tuple[Case, str]], console: Console
) -> None:
    """What `leanmark compare` prints: B over A, a row for each case and metric, and what is not compared."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("case", "metric", "B / A [95 %]", "verdict", "because"):
        grid.add_column(header, overflow="fold")
    for one in found:
        ratio = one.ratio
        text = units.ratio_interval(ratio.value, ratio.low, ratio.high) if ratio else "–"
        because = "; ".join(part for part in (one.reason, pairing(one)) if part)
        grid.add_row(*map(Text, (one.candidate.id, one.metric, text, one.verdict, because)))
    if grid.rows:
        console.print(grid)
    groups: dict[str, list[str]] = {}
    for case, reason in uncompared:
        groups.setdefault(reason, []).append(case.id)
    if groups:
        console.print(Text("not compared", style="bold"))
    for reason, names in groups.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        console.print(Text(f"{', '.join(names[:_NAMED])}{more}: {reason}"))


def passed(found: Sequence[Ruling], console: Console) -> None:
    """What a gate that objects to nothing rests on."""
    undecided = sum(one.verdict == "inconclusive" for one in found)
    hint = f"; {undecided} of {len(found)} could not be judged (--require-conclusive)" if undecided else ""
    console.print(f"gate: nothing is worse{hint}", highlight=False)


def rulings(found: Sequence[Ruling], console: Console) -> None:
    """What a gate objects to."""
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("case", "metric", "margin", "verdict", "because"):
        grid.add_column(header, overflow="fold")
    for one in found:
        rule = one.rule
        grid.add_row(
            *map(Text, (one.case.id, rule.metric, f"{rule.margin:.1%}", one.verdict, one.reason or ""))
        )
    console.print(grid)


def diagnoses(here: Environment, found: Sequence[Diagnosis], console: Console) -> None:
    """What `leanmark doctor` prints."""
    machine = here.machine
    console.print(
        Text(
            f"{machine['cpu']}, {machine['cores_allowed']} of {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB, {machine['instruction_sets']}"
        )
    )
    console.print(Text(f"machine {here.machine_id} · software {here.software_id}\n", "dim"))
    grid = Grid(box=None, pad_edge=False, show_header=False)
    for one in found:
        mark, style = _LEVELS[one.level]
        advice = Text(f"\n→ {one.advice}", "dim") if one.advice else Text("")
        grid.add_row(Text(mark, style), Text(one.subject), Text(one.message) + advice)
    console.print(grid)
