"""Software carbon intensity: SCI = (E x PUE x I + M) / R, of ISO/IEC 21031:2024. Pure.

E is the gross energy of the device per functional unit R, I the grid's intensity, the same for both sides of
every comparison. PUE is a multiplier of its own and never hidden in E. M is the share of what making the
device emitted, M = TE x (TiR / EL) x (RR / ToR): total embodied emissions, times the share of the expected
life that one unit reserves the device for, times the share that it reserves, which is all of it. M is an
estimate whatever E is: published figures for one board differ by a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass

from leanmark.errors import UsageError
from leanmark.intensity import Intensity
from leanmark.reading.carbon import J_PER_KWH

UNIT = 1000
"""Samples in one functional unit: inferences, or samples trained on."""

HIGHEST_PUE = 5.0
"""The worst rooms that surveys find are at 3."""

EMBODIED_FACTOR = 2.0
"""Published totals for the same board lie this far apart (150 to 318 kg for an A100)."""

HEAVIEST_KG = 100_000.0
HOURS_PER_YEAR = 8760.0
LIFETIME_YEARS = 3.0
"""What Boavizta assumes for a GPU: 26,280 h."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embodied:
    """Kilograms of CO2 equivalent for making the device, and how many years it is expected to be used."""

    total_kg: float
    lifetime_years: float = LIFETIME_YEARS

    def __post_init__(self) -> None:
        if not 0 < self.total_kg <= HEAVIEST_KG:
            raise UsageError(
                f"embodied emissions of a device are above 0 and at most {HEAVIEST_KG:g} kg, "
                f"not {self.total_kg:g} kg"
            )
        if not 0 < self.lifetime_years <= 30:
            raise UsageError(f"a device is used for up to 30 years, not for {self.lifetime_years:g}")

    def grams(self, reserved_s: float) -> float:
        """The share of ``reserved_s`` seconds."""
        return self.total_kg * 1000 * reserved_s / (self.lifetime_years * HOURS_PER_YEAR * 3600)

    def __str__(self) -> str:
        return f"{self.total_kg:g} kg over {self.lifetime_years:g} years of use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """What is counted. ``pue`` and ``embodied`` are ``None`` where they are left out."""

    intensity: Intensity
    pue: float | None = None
    embodied: Embodied | None = None

    def __post_init__(self) -> None:
        if self.pue is not None and not 1 <= self.pue <= HIGHEST_PUE:
            raise UsageError(
                f"a PUE is facility energy over IT energy, between 1 and {HIGHEST_PUE:g}, not {self.pue:g}"
            )


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


def embodied(total_kg: float | None, lifetime_years: float | None) -> Embodied | None:
    """What a user states about the making of the device.

    Raises:
        UsageError: it makes no sense.
    """
    if total_kg is None:
        if lifetime_years is not None:
            raise UsageError("--lifetime spreads the emissions of making the device: give --embodied too")
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
