"""What a kilowatt-hour emits and where that figure is from, and what a user states of site and device.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from leanmark.errors import UsageError

HIGHEST_PLAUSIBLE = 2000.0
"""g/kWh: twice what electricity from coal alone emits (995 in codecarbon's table)."""

WORLD = "world average"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """Grams of CO2 equivalent per kilowatt-hour of electricity, and where that figure is from.

    Raises:
        UsageError: it is not above 0, or beyond what any grid emits.
    """

    value_g_per_kwh: float
    zone: str
    period: str
    source: str
    basis: str

    def __post_init__(self) -> None:
        if not 0 < self.value_g_per_kwh <= HIGHEST_PLAUSIBLE:
            raise UsageError(
                f"a grid intensity is above 0 and at most {HIGHEST_PLAUSIBLE:g} g/kWh, "
                f"not {self.value_g_per_kwh:g}"
            )

    @property
    def is_world_average(self) -> bool:
        return self.zone == WORLD

    def __str__(self) -> str:
        return (
            f"{self.value_g_per_kwh:g} gCO2e/kWh ({self.zone}, {self.period}; {self.source}; "
            f"basis: {self.basis})"
        )


HIGHEST_PUE = 5.0
"""The worst rooms that surveys find are at 3."""


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
class Site:
    """What is stated of where a run was made: facility energy over IT energy, and the making of the device.

    Both are ``None`` where nothing is stated; neither is ever in the grams that energy comes to.

    Raises:
        UsageError: the PUE makes no sense.
    """

    pue: float | None = None
    embodied: Embodied | None = None

    def __post_init__(self) -> None:
        if self.pue is not None and not 1 <= self.pue <= HIGHEST_PUE:
            raise UsageError(
                f"a PUE is facility energy over IT energy, between 1 and {HIGHEST_PUE:g}, not {self.pue:g}"
            )

    @property
    def stated(self) -> Site | None:
        """Itself, ``None`` where it states nothing."""
        return None if self.pue is None and self.embodied is None else self

    def __str__(self) -> str:
        stated = [f"PUE {self.pue:g}"] if self.pue is not None else []
        stated += [f"{self.embodied} for making the device"] if self.embodied else []
        return ", ".join(stated)
