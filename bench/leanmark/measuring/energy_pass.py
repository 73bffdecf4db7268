"""The energy of the variants of one contest: windows in rounds, in a pass of their own.

Meters read while a window is open, which would disturb the blocks that are timed. As there, every variant
has its turn in every round, in seeded random order, so that what drifts is met by all of them.

An estimate gets no windows. It is modelled power times time, and the time is known from the rounds far
better than one short window could tell: its steps took 0.6 to 1.6 times those of the rounds.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leanmark.errors import LeanmarkError, MeterError
from leanmark.machine.probes import RoundProbe
from leanmark.measuring import energy_record
from leanmark.measuring.energy_record import Idle, Outcome, Window
from leanmark.measuring.launcher import Worker
from leanmark.measuring.schedule import Replica, order
from leanmark.meters.base import Meter, Reading
from leanmark.meters.energy import cross_check
from leanmark.protocol import messages
from leanmark.record import Block, Case, Finding, Measurement, Provenance, SamplingPlan

ESTIMATE_S = 0.3
"""How long a model of power is asked about one contest: its load counts in ticks of 10 ms."""

SETTLE_S = 1.0
"""What has just worked, or is still ending, is given this long before it counts as idle."""

LEAST_HELD = 0.98
"""The share of its requests that a paced window must have served in time to be one."""


@dataclass(slots=True)
class Entrant:
    """One variant in the energy pass, with the blocks of its latency; ``outcome`` is filled in.

    ``error`` is the worker's and ends the case.
    """

    case: Case
    worker: Worker
    latency: Sequence[Block]
    outcome: Outcome = field(default_factory=Outcome)
    error: LeanmarkError | None = None


class EnergyPass:
    """One replica of a contest. Without a meter, or where this replica has no turn, nothing happens.

    ``idle("bare")`` belongs before the processes of the contest start and after they have ended.
    """

    def __init__(
        self,
        plan: SamplingPlan,
        replica: Replica,
        meter: Meter[Any] | None,
        sleep: Callable[[float], None] = time.sleep,
        root: Path = Path("/"),
    ) -> None:
        self._plan = plan
        self._root = root
        self._sleep = sleep
        self._replica = replica
        self._meter = meter if meter and _has_turn(plan, replica, meter) else None
        self._idle: dict[Idle, list[Block]] = {}
        self._findings: list[Finding] = []
        self._entrants: Sequence[Entrant] = ()

    def play(self, entrants: Sequence[Entrant]) -> None:
        """Give every entrant its windows."""
        if self._meter is None or not entrants:
            return
        self._entrants = entrants
        if self._meter.provenance is Provenance.ESTIMATED_MODEL:
            self._estimate(self._meter)
            return
        self.idle("context")
        with self._cross_checked(self._meter), RoundProbe(self._replica.cores, self._root) as probe:
            for round_ in range(self._plan.energy_rounds):
                self._round(self._meter, probe, round_)
        self.idle("context")

    def idle(self, kind: Idle) -> None:
        """The power of a device that has nothing to do: a diagnostic, asked for in the first replica."""
        meter = self._meter
        if meter is None or self._replica.index or meter.provenance is Provenance.ESTIMATED_MODEL:
            return
        blocks = self._idle.setdefault(kind, [])
        if blocks:
            self._sleep(SETTLE_S)
        started = time.perf_counter()
        try:
            token = meter.start()
            self._sleep(self._seconds(meter))
            reading = meter.stop(token)()
        except MeterError as error:
            self._findings.append(Finding(code="no-idle-power", message=f"idle power ({kind}): {error}"))
            return
        doubt = None if reading.uncertainty is None else reading.uncertainty / reading.duration_s
        blocks.append(
            Block(
                process=self._replica.index,
                round=len(blocks),
                order=0,
                loops=1,
                start_s=started,
                value=reading.value / reading.duration_s,
                uncertainty=doubt,
            )
        )

    def records(self, run: str, contest: str, works: dict[Case, str]) -> list[Measurement]:
        """The measurements of the entrants named in ``works``."""
        if self._meter is None:
            return []
        shared = energy_record.Shared(
            run=run,
            contest=contest,
            meter=self._meter,
            idle={kind: tuple(blocks) for kind, blocks in self._idle.items() if blocks},
            findings=tuple(self._findings),
        )
        return [
            energy_record.measurement(shared, one.case, works[one.case], one.outcome)
            for one in self._entrants
            if one.case in works
        ]

    def _seconds(self, meter: Meter[Any]) -> float:
        return max(self._plan.energy_window_s, meter.min_window_s)

    def _round(self, meter: Meter[Any], probe: RoundProbe, round_: int) -> None:
        turns = order(self._plan.seed, self._replica.index, round_, len(self._entrants))
        for place, index in enumerate(turns):
            one = self._entrants[index]
            if one.error is not None or one.outcome.refusal is not None:
                continue
            degrees = meter.temperature_c() if meter.covers == "gpu" else probe.read().temperature_c
            block = Block(
                process=self._replica.index,
                round=round_,
                order=place,
                value=0.0,
                loops=1,
                start_s=time.perf_counter(),
                temperature_c=degrees,
            )
            self._saturated(meter, one, block)
            if self._plan.request_rate is not None and one.case.phase == "inference":
                self._paced(meter, one, block, self._plan.request_rate)

    def _saturated(self, meter: Meter[Any], one: Entrant, block: Block) -> None:
        found = self._window(meter, one, messages.RunWindow(self._seconds(meter)))
        if found is not None:
            window, reading = found
            one.outcome.windows.append(Window(block, window.steps, window.wall_s, reading))

    def _paced(self, meter: Meter[Any], one: Entrant, block: Block, rate_hz: float) -> None:
        if one.error is not None or one.outcome.refusal is not None or one.outcome.rate_refusal is not None:
            return
        seconds = max(self._seconds(meter), 1 / rate_hz)
        found = self._window(meter, one, messages.RunPaced(seconds, rate_hz))
        if found is None:
            return
        window, reading = found
        if window.steps < LEAST_HELD * rate_hz * window.wall_s:
            held = window.steps / window.wall_s
            one.outcome.rate_refusal = f"it served {held:.3g} of {rate_hz:g} requests per second"
        else:
            one.outcome.rate_hz = rate_hz
            one.outcome.paced.append(Window(block, window.steps, window.wall_s, reading))

    def _window(
        self, meter: Meter[Any], one: Entrant, request: messages.RunWindow | messages.RunPaced
    ) -> tuple[messages.Window, Reading] | None:
        """Steps between a start and a stop; the meter is stopped whatever becomes of the steps."""
        try:
            token = meter.start()
            try:
                timeout_s = self._plan.timeout_s + request.seconds
                window: messages.Window = one.worker.ask(request, timeout_s)
            finally:
                stopped = meter.stop(token)
            return window, stopped()
        except MeterError as error:
            one.outcome.refusal = error
        except LeanmarkError as error:
            one.error = error
        return None

    def _estimate(self, meter: Meter[Any]) -> None:
        """The modelled power of this contest, times the latency of each entrant."""
        watts = self._modelled_power(meter)
        for one in self._entrants:
            if isinstance(watts, MeterError):
                one.outcome.refusal = watts
                continue
            one.outcome.power_w = watts
            one.outcome.estimated = tuple(replace(block, value=watts * block.value) for block in one.latency)
            if self._plan.request_rate is not None and one.case.phase == "inference":
                one.outcome.rate_refusal = "there is only an estimate here, which knows nothing of idling"

    def _modelled_power(self, meter: Meter[Any]) -> float | MeterError:
        """In watts, while the first entrant that can runs; or why there is none."""
        for one in self._entrants:
            found = self._window(meter, one, messages.RunWindow(ESTIMATE_S))
            if found is not None:
                return found[1].value / found[1].duration_s
            if one.outcome.refusal is not None:
                return one.outcome.refusal
        return MeterError("power could not be estimated: no process lived to run under it")

    @contextlib.contextmanager
    def _cross_checked(self, meter: Meter[Any]) -> Iterator[None]:
        """A counter and a power sensor beside each other for the whole pass, where the device has both."""
        other = meter.second_opinion() if not self._replica.index else None
        if other is None:
            yield
            return
        with self._open(meter) as counted, self._open(other) as sampled:
            yield
        if counted and sampled:
            finding = cross_check(*counted, *sampled)
            self._findings += [finding] if finding else []

    @contextlib.contextmanager
    def _open(self, meter: Meter[Any]) -> Iterator[list[Reading]]:
        """One window of ``meter``, closed in any case; its reading on leaving, none where it failed."""
        found: list[Reading] = []
        try:
            token = meter.start()
        except MeterError as error:
            self._unchecked(error)
            yield found
            return
        try:
            yield found
        finally:
            try:
                found.append(meter.stop(token)())
            except MeterError as error:
                self._unchecked(error)

    def _unchecked(self, error: MeterError) -> None:
        message = f"the counter could not be checked against sampled power: {error}"
        self._findings.append(Finding(code="no-cross-check", message=message))


def _has_turn(plan: SamplingPlan, replica: Replica, meter: Meter[Any]) -> bool:
    """An estimate goes with the latency of every replica, whatever that came to."""
    return meter.provenance is Provenance.ESTIMATED_MODEL or replica.index < plan.energy_processes
