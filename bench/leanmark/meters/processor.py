"""What the two ways to the processor's own counters of energy (RAPL) have in common.

The sum is packages and their memory. psys (the whole platform) contains the packages: it is reported
beside the sum and checked against it.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal, Protocol

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.meters.counter import Followed, follow, longest_gap_s, same_register
from leanmark.meters.ticker import Repeat, Stop, Ticker
from leanmark.record import DOMAIN_LOST, Finding, Provenance

Kind = Literal["package", "dram", "psys"]

UPDATE_S = 1e-3
"""How often the registers are updated: Intel SDM volume 3B, "RAPL Interfaces"."""

GAIN = 0.05
"""The relative error of the registers. An assumption that is stated, not a bound that was measured."""

LONGEST_POLL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One counter of ``unit_j`` joules per count; after ``span`` it starts again, ``None`` if it never does.

    ``show`` is called in an open window. When that is over, what it showed is taken for a number; ``failure``
    says why it is none. Without a ``required`` domain there is no reading; another one that fails is left out
    with a finding.
    """

    name: str
    kind: Kind
    unit_j: float
    span: int | None
    show: Callable[[], Any]
    failure: Callable[[Any], MeterError]
    required: bool

    def check(self) -> None:
        """Raises:
        MeterError: it shows no count now.
        """
        try:
            self.followed([(self.show(), 0.0)] * 2)
        except OSError as error:
            raise self.failure(error) from error
        except StuckCounter:
            pass  # it was looked at only once

    def followed(self, shown: Sequence[tuple[Any, float]]) -> Followed:
        """What became of it over a window, from all that it showed.

        Raises:
            MeterError: that makes no sense.
        """
        counts = []
        for each, at_s in shown:
            try:
                counts.append((int(each), at_s))
            except (TypeError, ValueError):
                raise self.failure(each) from None
        return follow(self.name, self.unit_j, self.span, counts)


class Held(Protocol):
    """A file that is open while the meter is."""

    def close(self) -> None: ...


class Window:
    """What the counters showed, and when: nothing is made of it before the window is over."""

    __slots__ = ("_clock", "_domains", "_shown")

    def __init__(self, domains: Sequence[Domain], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._domains = domains
        self._shown: list[list[tuple[Any, float]]] = []

    def look(self) -> None:
        """At every counter, once."""
        now, row = self._clock, []
        for domain in self._domains:
            try:
                row.append((domain.show(), now()))
            except OSError as error:
                row.append((error, now()))
        self._shown.append(row)

    def check_first(self) -> None:
        """Raises:
        MeterError: a counter that is required could not be read when the window began.
        """
        for domain, (shown, _) in zip(self._domains, self._shown[0], strict=True):
            if domain.required and isinstance(shown, OSError):
                raise domain.failure(shown)

    def followed(self) -> tuple[list[tuple[Domain, Followed]], dict[str, str]]:
        """The domains that counted, and why the others did not.

        Raises:
            MeterError: a required one did not.
        """
        found, lost = [], {}
        for index, domain in enumerate(self._domains):
            try:
                found.append((domain, domain.followed([row[index] for row in self._shown])))
            except MeterError as error:
                if domain.required:
                    raise
                lost[domain.name] = str(error)
        return found, lost


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
        self._open: list[Window] = []
        self._turn = threading.Lock()
        self._stop_polling: Stop | None = None
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
                    domain.check()
        except MeterError as error:
            return str(error)
        return None

    def start(self) -> Window:
        window = Window(self._domains or self._known_domains(), self._clock)
        window.look()
        window.check_first()
        self._open.append(window)
        if self._stop_polling is None:
            self._stop_polling = self._repeat(self._poll, self._poll_s)
        return window

    def stop(self, token: Window) -> Stopped:
        with self._turn:
            token.look()
            self._open.remove(token)
        return partial(self._reading, token)

    def close(self) -> None:
        """Windows that are still open end without a reading."""
        self._ticker.close()
        self._stop_polling = None
        self._open.clear()
        self._domains = ()
        self._release()

    def _poll(self) -> float:
        """Keep up with the counters, before one of them can wrap unseen."""
        with self._turn:
            for window in self._open:
                window.look()
        return self._poll_s

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
        followed, lost = window.followed()
        mirrors = _mirrors(followed)
        dropped = mirrors if self.since_boot else {}
        value, duration_s, distinct, wraps = 0.0, 0.0, followed[0][1].distinct, 0
        parts, beside = {}, {}
        for domain, one in followed:
            joules, name = one.joules, one.name
            if domain.kind == "psys" and not domain.required:
                beside[name] = joules
            elif name not in dropped:
                parts[name] = joules
                value += joules
            duration_s = max(duration_s, one.last_s - one.first_s)
            distinct = min(distinct, one.distinct)
            wraps += one.wraps
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
            findings=self._doubts(lost, mirrors, value, beside),
        )

    def _doubts(
        self, lost: dict[str, str], mirrors: dict[str, str], value: float, beside: dict[str, float]
    ) -> tuple[Finding, ...]:
        if not (lost or mirrors or beside):
            return ()
        return (
            *(_lost(name, why) for name, why in lost.items()),
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


def _lost(name: str, why: str) -> Finding:
    """The platform is in no sum anyway: it is only what the packages are checked against."""
    message = f"without {name}: {why}"
    if name.rpartition("/")[2] == "psys":
        return Finding(code="platform-lost", message=message)
    return Finding(code=DOMAIN_LOST, message=message, without=name)


def _mirrors(followed: Sequence[tuple[Domain, Followed]]) -> dict[str, str]:
    """Each package that shows the counter of one before it, with that one's name."""
    packages = [one for domain, one in followed if domain.kind == "package"]
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
