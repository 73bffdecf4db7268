"""What a kilowatt-hour emits, and where that figure is from. Standard library only."""

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
                f"a grid intensity lies between 0 and {HIGHEST_PLAUSIBLE:g} g/kWh, "
                f"not at {self.value_g_per_kwh:g}"
            )

    @property
    def is_world_average(self) -> bool:
        return self.zone == WORLD

    def __str__(self) -> str:
        return (
            f"{self.value_g_per_kwh:g} gCO2e/kWh ({self.zone}, {self.period}; {self.source}; "
            f"basis: {self.basis})"
        )
