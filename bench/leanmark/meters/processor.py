"""What the two ways to the processor's own counters of energy (RAPL) have in common.

The sum is packages and their memory. psys (the whole platform) contains the packages: it is reported
beside the sum and checked against it.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, Protocol

from leanmark.errors import MeterError
from leanmark.meters.base import Evidence, Meter, Reading
from leanmark.meters.counter import Follower, longest_gap_s, same_register
from leanmark.meters.ticker import Repeat, Stop, Ticker
from leanmark.record import Finding, Provenance

Kind = Literal["package", "dram", "psys"]

UPDATE_S = 1e-3
"""How often the registers are updated: Intel SDM volume 3B, "RAPL Interfaces"."""

GAIN = 0.05
"""The relative error of the registers. An assumption that is stated, not a bound that was measured."""

LONGEST_POLL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One counter of ``unit_j`` joules per count; after ``span`` it starts again, ``None`` if it never does.

    Without a ``required`` domain there is no reading; another one that fails is left out with a finding.
    """

    name: str
    kind: Kind
    unit_j: float
    span: int | None
    read: Callable[[], int]
    required: bool


class Held(Protocol):
    """A file that is open while the meter is."""

    def close(self) -> None: ...


class Window:
    """Follows all domains from when it is made; ``stop_polling`` is set by whoever has it polled."""

    __slots__ = ("_clock", "_failed", "_followed", "_poll_s", "lost", "stop_polling")

    def __init__(self, domains: Sequence[Domain], clock: Callable[[], float], poll_s: float) -> None:
        self.lost: dict[str, str] = {}
        self.stop_polling: Stop
        self._clock = clock
        self._poll_s = poll_s
        self._failed: MeterError | None = None
        self._followed: list[tuple[Domain, Follower]] = []
        for domain in domains:
            try:
                count = domain.read()
            except MeterError as error:
                self._lose(domain, error)
            else:
                follower = Follower(domain.name, domain.unit_j, domain.span, count, clock())
                self._followed.append((domain, follower))

    def poll(self) -> float:
        """Keep up with the counters; what goes wrong is told when the window ends."""
        if self._failed is None:
            try:
                self._update()
            except MeterError as error:
                self._failed = error
        return self._poll_s

    def finish(self) -> list[tuple[Domain, Follower]]:
        """The domains that counted.

        Raises:
            MeterError: a required one did not, now or in a poll before.
        """
        if self._failed is not None:
            raise self._failed
        self._update()
        for domain, follower in self._followed:
            if follower.distinct < 2:
                try:
                    follower.demand_movement()
                except MeterError as error:
                    self._lose(domain, error)
        return self._followed

    def _update(self) -> None:
        for domain, follower in self._followed:
            try:
                follower.update(domain.read(), self._clock())
            except MeterError as error:
                self._lose(domain, error)

    def _lose(self, domain: Domain, error: MeterError) -> None:
        """Leave ``domain`` out, in a new list: the old one may be being gone through."""
        if domain.required:
            raise error
        self.lost[domain.name] = str(error)
        self._followed = [pair for pair in self._followed if pair[0] is not domain]


class ProcessorEnergy(Meter[Window]):
    """Energy of all packages of the machine and of their memory, in joules."""

    unit = "j"
    scope = "machine"
    provenance = Provenance.MEASURED_COUNTER
    covers = "processor"
    resolution = 61e-6
    min_window_s = 0.1  # a hundred updates

    source: str
    since_boot: bool
    """Whether counts are those of the register since boot, so that equal counts mean one register."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, repeat: Repeat | None = None) -> None:
        self._clock = clock
        self._ticker = Ticker()
        self._repeat = repeat or self._ticker.repeat
        self._domains: tuple[Domain, ...] = ()
        self._poll_s = LONGEST_POLL_S
        self.held: list[Held] = []

    @abstractmethod
    def find_domains(self) -> tuple[Domain, ...]:
        """Every counter, each once; what is opened for them is ``held`` until the meter is closed.

        Raises:
            MeterError: why there is none.
        """

    def unavailable(self) -> str | None:
        try:
            for domain in self._known_domains():
                if domain.required:
                    domain.read()
        except MeterError as error:
            return str(error)
        return None

    def start(self) -> Window:
        window = Window(self._known_domains(), self._clock, self._poll_s)
        window.stop_polling = self._repeat(window.poll, self._poll_s)
        return window

    def stop(self, token: Window) -> Reading:
        token.stop_polling()
        return self._reading(token)

    def close(self) -> None:
        self._ticker.close()
        self._domains = ()
        self._release()

    def _release(self) -> None:
        held, self.held = self.held, []
        for one in held:
            one.close()

    def _known_domains(self) -> tuple[Domain, ...]:
        if not self._domains:
            try:
                self._domains = self.find_domains()
            except MeterError:
                self._release()
                raise
            gaps = [longest_gap_s(domain.unit_j, domain.span) for domain in self._domains]
            self._poll_s = min(LONGEST_POLL_S, *(gap_s / 3 for gap_s in gaps))  # well within a wrap
        return self._domains

    def _reading(self, window: Window) -> Reading:
        followed = window.finish()
        mirrors = _mirrors(followed)
        dropped = mirrors if self.since_boot else {}
        value, duration_s, distinct, wraps = 0.0, 0.0, followed[0][1].distinct, 0
        parts, beside = {}, {}
        for domain, follower in followed:  # once, plainly: every call here is cold when a window ends
            joules, name = follower.joules, domain.name
            if domain.kind == "psys" and not domain.required:
                beside[name] = joules
            elif name not in dropped:
                parts[name] = joules
                value += joules
            duration_s = max(duration_s, follower.last_s - follower.first_s)
            distinct = min(distinct, follower.distinct)
            wraps += follower.wraps
        return Reading(
            value=value,
            duration_s=duration_s,
            uncertainty=value / duration_s * UPDATE_S,
            evidence=Evidence(
                source=self.source,
                distinct=distinct,
                wraps=wraps,
                update_period_s=UPDATE_S,
                gain=GAIN,
                parts=parts,
                beside=beside,
            ),
            findings=self._doubts(window, mirrors, value, beside),
        )

    def _doubts(
        self, window: Window, mirrors: dict[str, str], value: float, beside: dict[str, float]
    ) -> tuple[Finding, ...]:
        if not (window.lost or mirrors or beside):
            return ()
        return (
            *(Finding(code="domain-lost", message=reason) for reason in window.lost.values()),
            *(self._mirror_finding(*pair) for pair in mirrors.items()),
            *_platform_findings(value, beside),
        )

    def _mirror_finding(self, name: str, original: str) -> Finding:
        if self.since_boot:
            return Finding(code="mirrored-counter", message=f"{name} repeats {original}: counted once")
        return Finding(
            code="mirrored-counter",
            message=f"{name} and {original} agree to a joule: if they are dies that show one counter, the "
            "sum is too large by that",
        )


def _mirrors(followed: Sequence[tuple[Domain, Follower]]) -> dict[str, str]:
    """Each package that shows the counter of one before it, with that one's name."""
    packages = [follower for domain, follower in followed if domain.kind == "package"]
    found: dict[str, str] = {}
    for one, other in combinations(packages, 2):
        if one.name not in found and same_register(one, other):
            found.setdefault(other.name, one.name)
    return found


def _platform_findings(value: float, beside: dict[str, float]) -> list[Finding]:
    """A platform that draws less than its packages is a counter that must not be believed."""
    return [
        Finding(
            code="platform-below-package",
            message=f"{name} counted {joules:.3g} J, less than the {value:.3g} J of what it contains",
        )
        for name, joules in beside.items()
        if joules < value
    ]
