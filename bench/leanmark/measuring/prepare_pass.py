"""The models of one workload: which chains must be made, in which order, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leanmark import chain
from leanmark.errors import LeanmarkError, MeterError, Unsupported
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.schedule import Replica
from leanmark.meters.base import Meter, Reading
from leanmark.protocol import messages
from leanmark.record import BASELINE, Case, Cost, Provenance, short_hash

TIMEOUT_S = 3600.0

UNPREPARED = "unprepared"
"""The work of a case whose baseline could not even be made."""


@dataclass(slots=True)
class Prepared:
    """What is known about the models of one workload; ``folder`` holds them."""

    folder: Path
    spec: messages.WorkloadSpec
    ready: dict[str, messages.Ready] = field(default_factory=dict)
    errors: dict[str, LeanmarkError] = field(default_factory=dict)

    def obstacle(self, case: Case) -> LeanmarkError | None:
        """Why ``case`` cannot be measured, or ``None``."""
        if case.technique in self.errors:
            return self.errors[case.technique]
        refusal = self.ready[case.technique].refusals.get(case.backend)
        return Unsupported(refusal) if refusal else None

    def work(self, case: Case) -> str:
        """The identity of the work: equal only where two cases do the same thing to the same data."""
        baseline = self.ready.get(BASELINE)
        if baseline is None:
            return UNPREPARED
        return short_hash([baseline.work, case.phase, case.batch, case.device, case.threads, case.wait])


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
) -> tuple[messages.Ready, Cost]:
    """Make one chain from the one before it, in a worker of its own.

    Raises:
        LeanmarkError: what went wrong, also where the chain before it could not be made.
    """
    before = chain.spell(chain.parse(name)[:-1])
    if name != BASELINE and before in prepared.errors:
        raise Unsupported(f"{before} could not be prepared: {prepared.errors[before]}")
    request = messages.Prepare(
        workload=prepared.spec,
        folder=str(prepared.folder),
        chain=name,
        backends=backends,
        place=messages.Place(cores=replica.cores, threads=replica.layout.threads),
    )
    worker = launcher.server(replica.layout).fork()
    token = _start(meter)
    try:
        ready: messages.Ready = worker.ask(request, TIMEOUT_S)
    finally:
        reading = _stop(meter, token)
        worker.close()
    return ready, _cost(ready, meter, reading)


def _start(meter: Meter[Any] | None) -> Any:
    """A token, or the error that there is none."""
    try:
        return meter.start() if meter else None
    except MeterError as error:
        return error


def _stop(meter: Meter[Any] | None, token: Any) -> Reading | str:
    """The reading, or why there is none."""
    if meter is None:
        return "no meter of energy is available"
    if isinstance(token, MeterError):
        return str(token)
    try:
        return meter.stop(token)
    except MeterError as error:
        return str(error)


def _cost(ready: messages.Ready, meter: Meter[Any] | None, reading: Reading | str) -> Cost:
    """The window also holds loading and exporting: a counter's reading is of all that, an estimate from
    time may be divided by time."""
    if meter is None or isinstance(reading, str):
        return Cost(time_s=ready.time_s, energy_reason=str(reading))
    estimated = meter.provenance is Provenance.ESTIMATED_MODEL
    return Cost(
        time_s=ready.time_s,
        energy_j=reading.value * (ready.time_s / reading.duration_s if estimated else 1.0),
        energy_provenance=meter.provenance,
    )
