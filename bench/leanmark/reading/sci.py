"""Software carbon intensity: SCI = (E x PUE x I + M) / R, of ISO/IEC 21031:2024. Pure.

E is the gross energy of the device per functional unit R, I the grid's intensity, the same for both sides of
every comparison. PUE is a multiplier of its own and never hidden in E. M is the share of what making the
device emitted, M = TE x (TiR / EL) x (RR / ToR): total embodied emissions, times the share of the expected
life that one unit reserves the device for, times the share that it reserves, which is all of it. M is an
estimate whatever E is: published figures for one board differ by a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from leanmark.errors import UsageError
from leanmark.intensity import LIFETIME_YEARS, Embodied, Intensity, Site
from leanmark.reading.carbon import J_PER_KWH
from leanmark.record import Run, Summary

UNIT = 1000
"""Samples in one functional unit: inferences, or samples trained on."""

EMBODIED_FACTOR = 2.0
"""Published totals for the same board lie this far apart (150 to 318 kg for an A100)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """What is counted. ``pue`` and ``embodied`` are ``None`` where they are left out."""

    intensity: Intensity
    pue: float | None = None
    embodied: Embodied | None = None

    def __post_init__(self) -> None:
        Site(pue=self.pue, embodied=self.embodied)  # refuses what makes no sense


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Grams of CO2 equivalent for one functional unit; the embodied part is ``None`` where it is left out."""

    operational_g: float
    embodied_g: float | None = None

    @property
    def total_g(self) -> float:
        return self.operational_g + (self.embodied_g or 0.0)

    @property
    def embodied_range_g(self) -> tuple[float, float] | None:
        if self.embodied_g is None:
            return None
        return self.embodied_g / EMBODIED_FACTOR, self.embodied_g * EMBODIED_FACTOR


def boundary(run: Run, intensity: Intensity, site: Site) -> Boundary:
    """What ``site`` states, and where it states nothing what the ``run`` does."""
    stated = run.site or Site()
    return Boundary(
        intensity=intensity,
        pue=stated.pue if site.pue is None else site.pue,
        embodied=site.embodied or stated.embodied,
    )


def site(pue: float | None, embodied_kg: float | None, lifetime_years: float | None) -> Site:
    """What a user states of the place and the device, which may be nothing.

    Raises:
        UsageError: it makes no sense.
    """
    return Site(pue=pue, embodied=embodied(embodied_kg, lifetime_years))


def embodied(total_kg: float | None, lifetime_years: float | None) -> Embodied | None:
    """What a user states about the making of the device.

    Raises:
        UsageError: it makes no sense.
    """
    if total_kg is None:
        if lifetime_years is not None:
            raise UsageError("a lifetime spreads the emissions of making the device: give those too")
        return None
    return Embodied(
        total_kg=total_kg, lifetime_years=LIFETIME_YEARS if lifetime_years is None else lifetime_years
    )


def score(joules: float, seconds: float, boundary: Boundary) -> Score:
    """Of a functional unit that takes ``joules`` and reserves the device for ``seconds``."""
    operational_g = joules * (boundary.pue or 1.0) / J_PER_KWH * boundary.intensity.value_g_per_kwh
    embodied = boundary.embodied
    return Score(
        operational_g=operational_g,
        embodied_g=embodied.grams(seconds) if embodied else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """The ``score`` of one step, by what the run states of its ``site``."""

    site: Site
    score: Score


class Summarized(Protocol):
    @property
    def summary(self) -> Summary: ...


def footprint(
    site: Site | None, intensity: Intensity | None, energy: Summarized | None, latency: Summarized | None
) -> Footprint | None:
    """Of a step; ``None`` where the run states nothing of its site, or a factor is not known."""
    if site is None or intensity is None or energy is None or latency is None:
        return None
    boundary = Boundary(intensity=intensity, pue=site.pue, embodied=site.embodied)
    return Footprint(site=site, score=score(energy.summary.value, latency.summary.value, boundary))
