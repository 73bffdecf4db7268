"""A contest on fakes: workers that draw known power on a virtual clock, metered through the real meters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leanmark.errors import WorkerDied
from leanmark.measuring.energy_pass import EnergyPass, Entrant
from leanmark.measuring.schedule import Replica
from leanmark.meters.base import Meter
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.rapl import Rapl
from leanmark.plan import QUICK
from leanmark.protocol import messages
from leanmark.protocol.layout import Layout
from leanmark.record import Block, Case, Measurement, SamplingPlan, Series
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.power import Switched
from leanmark.testing.powercap import FakePowercap, FakeZone

from . import synthetic

IDLE_W = 60.0
NO_THERMOMETER = Path("/nonexistent")
CASES = (Case(workload="cnn"), Case(workload="cnn", technique="prune(ratio=0.5)"))
LAYOUT = Layout(hash_seed=1, padding_bytes=0, threads=1, wait="passive")
FIRST = Replica(index=0, parent=0, layout=LAYOUT, cores=(0,), rounds=15)


@dataclass(slots=True)
class Worker:
    """Steps of ``step_s`` at ``busy_w``; ``asked`` holds what it was told to do."""

    load: Switched
    clock: VirtualClock
    step_s: float
    busy_w: float
    dies: bool = False
    asked: list[Any] = field(default_factory=list)

    def ask(self, request: Any, timeout_s: float) -> messages.Window:
        self.asked.append(request)
        if self.dies:
            raise WorkerDied("the process was killed by SIGKILL")
        if isinstance(request, messages.RunPaced):
            return self._paced(request)
        steps = max(1, round(request.seconds / self.step_s))
        self._step(steps)
        return messages.Window(steps=steps, wall_s=steps * self.step_s)

    def _step(self, steps: int) -> None:
        self.load.switch(self.clock(), self.busy_w)
        self.clock.sleep(steps * self.step_s)
        self.load.switch(self.clock(), IDLE_W)

    def _paced(self, request: messages.RunPaced) -> messages.Window:
        ticks = round(request.seconds * request.rate_hz)
        period_s = 1 / request.rate_hz
        if self.step_s > period_s:
            steps = round(request.seconds / self.step_s)
            self._step(steps)
            return messages.Window(steps=steps, wall_s=steps * self.step_s)
        for _ in range(ticks):
            self._step(1)
            self.clock.sleep(period_s - self.step_s)
        return messages.Window(steps=ticks, wall_s=ticks * period_s)


@dataclass(frozen=True, slots=True)
class Stage:
    clock: VirtualClock
    load: Switched
    meter: Meter[Any]
    library: FakeNvml | None = None

    def entrants(self, *works: tuple[float, float], cases: Sequence[Case] = CASES) -> list[Entrant]:
        """One for each pair of step seconds and watts."""
        return [
            Entrant(case, Worker(self.load, self.clock, step_s, watts), latency(step_s))  # type: ignore[arg-type]
            for case, (step_s, watts) in zip(cases, works, strict=True)
        ]

    def play(
        self,
        entrants: Sequence[Entrant],
        plan: SamplingPlan = QUICK,
        replica: Replica = FIRST,
        between: Callable[[], None] = lambda: None,
    ) -> list[Measurement]:
        """The whole pass; ``between`` happens before the processes end."""
        energy = EnergyPass(plan, replica, self.meter, self.clock.sleep, NO_THERMOMETER)
        energy.idle("bare")
        energy.play(entrants)
        between()
        energy.idle("bare")
        sound = {one.case: f"work/{one.case.workload}" for one in entrants if one.error is None}
        return energy.records("7f3a", "contest", sound)


def there(one: Measurement, metric: str) -> Series:
    """The series of ``metric``, which must be there."""
    found = one.find(metric)
    assert found is not None, f"no {metric} in {one.pass_name} of {one.case.id}"
    return found


def latency(step_s: float) -> tuple[Block, ...]:
    return synthetic.latency(step_s, processes=1, rounds=3, sd=0.0).blocks


@contextmanager
def gpu(**changes: Any) -> Iterator[Stage]:
    """A board with an energy counter that is published every 50 ms."""
    clock, load = VirtualClock(), Switched(IDLE_W)
    board = replace(FakeGpu(power=load, update_s=0.05, call_s=0.0), **changes)
    library = FakeNvml([board], clock)
    with library.installed():
        meter = NvmlEnergy(Gpu(0), clock=clock, sleep=clock.sleep, repeat=clock.repeat)
        yield Stage(clock, load, meter, library)


def processor(root: Path) -> Stage:
    """One package whose counter is updated every millisecond."""
    clock, load = VirtualClock(), Switched(IDLE_W)
    tree = FakePowercap(root, [FakeZone(folder="intel-rapl:0", name="package-0", power=load)], clock)
    tree.write()
    return Stage(clock, load, Rapl(root, read=tree.read, clock=clock, repeat=clock.repeat))
