"""What disturbed a GPU in a round, told from readings before and after it. Pure, as ``disturbance``.

Thermal and hardware slowdown and processes of others make a round a bad one. A power cap does not: it is
where heavy kernels run all the time (nvbench discards by clock alone, and finds no end; its issue 231). It
is counted and told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

POWER_CAP = 0x4
SLOWDOWN = 0x8 | 0x20 | 0x40 | 0x80
"""Hardware slowdown, thermal slowdown by software and by hardware, power brake (NVML's event reasons)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSample:
    """Readings of one board; ``None`` could not be taken. Those in seconds and errors only grow.

    ``gpu_reasons`` are the event reasons of the clocks now, ``gpu_thermal_s`` and ``gpu_power_s`` how long
    heat and power have held the clocks down, ``gpu_foreign`` how many processes are not ours.
    """

    gpu_reasons: int | None = None
    gpu_thermal_s: float | None = None
    gpu_power_s: float | None = None
    gpu_clock_hz: float | None = None
    gpu_memory_clock_hz: float | None = None
    gpu_temperature_c: float | None = None
    gpu_limit_w: float | None = None
    gpu_ecc_errors: int | None = None
    gpu_foreign: int | None = None


def gpu_flags(before: GpuSample, after: GpuSample) -> tuple[str, ...]:
    """``gpu_slowed`` (for heat or by the hardware), ``gpu_shared``, ``gpu_ecc`` (a memory error that could
    not be corrected), ``gpu_limit`` (somebody changed the power limit)."""
    return tuple(_flags(before, after))


def _flags(before: GpuSample, after: GpuSample) -> Iterator[str]:
    if (after.gpu_reasons or 0) & SLOWDOWN or _grew(before.gpu_thermal_s, after.gpu_thermal_s):
        yield "gpu_slowed"
    if before.gpu_foreign or after.gpu_foreign:
        yield "gpu_shared"
    if _grew(before.gpu_ecc_errors, after.gpu_ecc_errors):
        yield "gpu_ecc"
    if before.gpu_limit_w != after.gpu_limit_w:
        yield "gpu_limit"


def power_capped(before: GpuSample, after: GpuSample) -> bool:
    """Whether the board held its clocks down to stay within its power."""
    capped = bool((after.gpu_reasons or 0) & POWER_CAP)
    return capped or _grew(before.gpu_power_s, after.gpu_power_s)


def foreign(processes: Iterable[bool]) -> int | None:
    """How many of ``processes`` (whether each is ours) are others'; ``None`` where that cannot be told.

    A container sees the numbers that its host gives to processes, and recognises none as its own.
    """
    known = list(processes)
    if known and not any(known):
        return None
    return sum(not ours for ours in known)


def _grew(before: float | None, after: float | None) -> bool:
    return before is not None and after is not None and after > before
