"""The models of one workload: which chains must be made, in which order, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leanmark import chain
from leanmark.errors import LeanmarkError, NotComparable, Unsupported
from leanmark.measuring.cost import CostMeter
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.schedule import Replica
from leanmark.measuring.source import HERE, Source
from leanmark.meters.base import Meter
from leanmark.protocol import messages
from leanmark.record import BASELINE, Case, Cost, short_hash

TIMEOUT_S = 3600.0

UNPREPARED = "unprepared"
"""The work of a case whose baseline could not even be made."""


@dataclass(slots=True)
class Prepared:
    """What is known about the models of one workload; ``folder`` holds them."""

    folder: Path
    spec: messages.WorkloadSpec
    source: Source = HERE
    ready: dict[str, messages.Ready] = field(default_factory=dict)
    errors: dict[str, LeanmarkError] = field(default_factory=dict)

    def obstacle(self, case: Case) -> LeanmarkError | None:
        """Why ``case`` cannot be measured, or ``None``."""
        if case.technique in self.errors:
            return self.errors[case.technique]
        if BASELINE in self.errors:
            return _not_prepared(BASELINE, self.errors[BASELINE])
        refusal = self.ready[case.technique].refusals.get(case.backend)
        return Unsupported(refusal) if refusal else None

    def work(self, case: Case) -> str:
        """The identity of the work: equal only where two cases do the same thing to the same data."""
        baseline = self.ready.get(BASELINE)
        if baseline is None:
            return UNPREPARED
        return short_hash([baseline.work, case.phase, case.batch, case.device, case.threads, case.wait])


def refusal(sides: Sequence[Prepared]) -> NotComparable | None:
    """Why two commits may not be compared: they do different work; names every difference."""
    baselines = [side.ready[BASELINE] for side in sides if BASELINE in side.ready]
    if len({one.work for one in baselines}) < 2:
        return None
    mine, other = baselines
    parts = sorted({*mine.work_parts, *other.work_parts})
    differences = [
        f"{part} ({mine.work_parts.get(part)} / {other.work_parts.get(part)})"
        for part in parts
        if mine.work_parts.get(part) != other.work_parts.get(part)
    ]
    return NotComparable(
        f"refused: this commit and {sides[-1].source.rival} do different work; they differ in "
        + "; ".join(differences)
    )


def chains(techniques: Iterable[str]) -> list[str]:
    """Every chain and all that it is built on, shortest first, the baseline before all."""
    found = {BASELINE: None}
    for text in techniques:
        links = chain.parse(text)
        found |= {chain.spell(links[: n + 1]): None for n in range(len(links))}
    return sorted(found, key=lambda text: len(chain.parse(text)))


def backends_for(name: str, cases: Iterable[Case]) -> tuple[str, ...]:
    """The backends that run this chain, or one that continues it."""
    return tuple(
        dict.fromkeys(
            case.backend
            for case in cases
            if name in (BASELINE, case.technique) or case.technique.startswith(f"{name}+")
        )
    )


def apply(
    name: str,
    prepared: Prepared,
    backends: tuple[str, ...],
    replica: Replica,
    launcher: Launcher,
    meter: Meter[Any] | None,
    device: str,
) -> tuple[messages.Ready, dict[str, Cost]]:
    """Make one chain from the one before it, in a worker of its own, to run on ``device``; what that cost,
    by backend.

    Raises:
        LeanmarkError: what went wrong, also where the chain before it could not be made.
    """
    before = chain.spell(chain.parse(name)[:-1])
    if name != BASELINE and before in prepared.errors:
        raise _not_prepared(before, prepared.errors[before])
    request = messages.Prepare(
        workload=prepared.spec,
        folder=str(prepared.folder),
        chain=name,
        backends=backends,
        place=messages.Place(cores=replica.cores, threads=replica.layout.threads),
        device=device,
    )
    worker = launcher.server(replica.layout, prepared.source).fork()
    with CostMeter(meter) as metered:
        try:
            ready: messages.Ready = worker.ask(request, TIMEOUT_S, metered.notice)
        finally:
            worker.close()
    return replace(ready, doubts=(*ready.doubts, *metered.doubts(ready))), metered.costs(ready)


def _not_prepared(name: str, error: LeanmarkError) -> Unsupported:
    return Unsupported(f"{name} could not be prepared: {error}")
