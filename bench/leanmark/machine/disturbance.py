"""What disturbed a block or a round, told from readings before and after it. Pure.

A block is sampled in the process that runs it, a round in the parent (``probes`` reads the kernel for
both). Thresholds are shares of the time that passed, so slow and fast variants are judged alike. A reading
that is ``None`` could not be taken: it raises no flag, and is not "fine" either, so ``unobserved`` names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

from leanmark.machine.gpu_disturbance import GpuSample
from leanmark.record import Finding

UNOBSERVED = "disturbances_unobserved"
"""Code of the finding that some disturbances cannot be seen here."""

LOST_SHARE = 0.01
"""Of a block's time, not spent running: half of the margin of 2 % that a verdict turns on."""

SWITCHES_PER_S = 100.0
"""Forced context switches a second, where the time they cost cannot be read.

A task that shares its core is switched out once in two slices of 1 to 3 ms (``base_slice_ns`` of Linux),
hundreds of times a second; one alone on its core was 14 times, measured on a virtual machine with two.
"""

SLOWEST_CLOCK = 0.75
"""Of the clock before the block: the share below which nvbench discards a sample (``throttle-threshold``)."""

PRESSURE_SHARE = 0.2
"""Of a round's time, in which some task of the machine waited for a core (Linux, ``psi.rst``).

Machine-wide, so some of it is on cores we do not use. Measured on two cores: 95 % of quiet rounds lie below
0.03; with one busy process on our core every round lies above 0.9.
"""

STEAL_SHARE = 0.01
"""Of a round's time on our cores, given to another virtual machine. As ``LOST_SHARE``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSample:
    """Readings of the process and its stepping thread; counts and times only grow.

    ``cpu_s`` and ``slept`` (voluntary context switches) are the stepping thread's, ``switched`` (forced
    ones) and ``major_faults`` (pages read from disk) the process's. ``waited_s`` has one entry for each
    thread: time it was ready to run and did not. ``clock_hz`` is that of the core it is pinned to.
    """

    wall_s: float
    cpu_s: float
    slept: int | None = None
    switched: int | None = None
    major_faults: int | None = None
    waited_s: tuple[float, ...] | None = None
    clock_hz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSample:
    """Readings of the machine; those in seconds, pages and events only grow.

    ``pressure_s`` is PSI's "some" total for the processor, ``steal_s`` summed over ``cores`` cores,
    ``throttled_s`` what the control group's quota cost, ``hot`` whether a thermal zone is at the point
    where the kernel slows down. The load is an average over a minute: evidence, too slow to flag a round.
    """

    wall_s: float
    cores: int
    pressure_s: float | None = None
    steal_s: float | None = None
    throttled_s: float | None = None
    swapped_pages: int | None = None
    throttle_events: int | None = None
    governor: str | None = None
    hot: bool | None = None
    temperature_c: float | None = None
    load_1min: float | None = None


def block_flags(before: BlockSample, after: BlockSample) -> tuple[str, ...]:
    """``preempted``, ``major_faults``, ``clock``: what disturbed the block between two readings."""
    return tuple(_block_flags(before, after))


def _block_flags(before: BlockSample, after: BlockSample) -> Iterator[str]:
    wall_s, lost = after.wall_s - before.wall_s, lost_s(before, after)
    if lost is not None:
        if lost > LOST_SHARE * wall_s:
            yield "preempted"
    elif _change(before.switched, after.switched) > max(1.0, SWITCHES_PER_S * wall_s):
        yield "preempted"
    if _change(before.major_faults, after.major_faults) > 0:
        yield "major_faults"
    if before.clock_hz and after.clock_hz and not _near(before.clock_hz, after.clock_hz):
        yield "clock"


def lost_s(before: BlockSample, after: BlockSample) -> float | None:
    """Seconds the step could not run although it wanted to; ``None`` where that cannot be told.

    A thread that never slept ran all the time but for what others took: wall time minus its CPU time,
    which includes steal. One that slept (waiting for its helpers or a device) is judged by how long it
    and its helpers stood in the queue, at worst.
    """
    waited = None
    if before.waited_s is not None and after.waited_s is not None:
        waited = max(end - start for start, end in zip(before.waited_s, after.waited_s, strict=True))
    if before.slept is None or after.slept != before.slept:
        return waited
    gap = (after.wall_s - before.wall_s) - (after.cpu_s - before.cpu_s)
    return max(gap, waited or 0.0)


def round_flags(before: RoundSample, after: RoundSample) -> tuple[str, ...]:
    """What disturbed the machine between two readings; the flags of every block in between.

    ``pressure``, ``steal``, ``throttled`` (quota), ``swap``, ``slowed`` (by the processor itself, for
    heat or power), ``hot``, ``governor``.
    """
    return tuple(_round_flags(before, after))


def _round_flags(before: RoundSample, after: RoundSample) -> Iterator[str]:
    wall_s = after.wall_s - before.wall_s
    if _change(before.pressure_s, after.pressure_s) > PRESSURE_SHARE * wall_s:
        yield "pressure"
    if _change(before.steal_s, after.steal_s) > STEAL_SHARE * wall_s * after.cores:
        yield "steal"
    if _change(before.throttled_s, after.throttled_s) > 0:
        yield "throttled"
    if _change(before.swapped_pages, after.swapped_pages) > 0:
        yield "swap"
    if _change(before.throttle_events, after.throttle_events) > 0:
        yield "slowed"
    if after.hot:
        yield "hot"
    if before.governor != after.governor:
        yield "governor"


def unobserved(*samples: BlockSample | RoundSample | GpuSample) -> tuple[str, ...]:
    """Names of the readings that could not be taken."""
    return tuple(
        field.name for sample in samples for field in fields(sample) if getattr(sample, field.name) is None
    )


def findings(missing: Iterable[str]) -> tuple[Finding, ...]:
    """The finding that the readings ``missing`` (see :func:`unobserved`) are not "fine"; none without any."""
    names = sorted({_READINGS[name] for name in missing})
    if not names:
        return ()
    message = f"cannot be observed here, so nothing is known about: {', '.join(names)}"
    return (Finding(code=UNOBSERVED, message=message),)


_READINGS: Mapping[str, str] = {
    "slept": "context switches",
    "switched": "context switches",
    "major_faults": "major page faults",
    "waited_s": "time waiting for a core",
    "clock_hz": "clock frequency",
    "pressure_s": "pressure on the processor",
    "steal_s": "steal by other virtual machines",
    "throttled_s": "throttling by the control group",
    "swapped_pages": "swapping",
    "throttle_events": "throttling by the processor",
    "governor": "frequency governor",
    "hot": "distance to the thermal limit",
    "temperature_c": "temperature",
    "load_1min": "load",
    "gpu_reasons": "why the GPU slows down",
    "gpu_thermal_s": "throttling of the GPU for heat",
    "gpu_power_s": "throttling of the GPU for power",
    "gpu_clock_hz": "clock frequency of the GPU",
    "gpu_memory_clock_hz": "clock frequency of the GPU's memory",
    "gpu_temperature_c": "temperature of the GPU",
    "gpu_limit_w": "power limit of the GPU",
    "gpu_ecc_errors": "memory errors of the GPU",
    "gpu_foreign": "other processes on the GPU",
}


def _change(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else after - before


def _near(before: float, after: float) -> bool:
    return SLOWEST_CLOCK <= after / before <= 1 / SLOWEST_CLOCK
