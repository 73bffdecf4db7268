"""Joules to grams of CO2 equivalent, at a grid intensity that is always stated.

The figures per country and for the world come from the data files of codecarbon, which are read without
importing it: its import is slow and prints.
"""

from __future__ import annotations

import difflib
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leanmark.errors import UnknownName, UsageError
from leanmark.intensity import WORLD, Intensity
from leanmark.record import Run

J_PER_KWH = 3.6e6


def grams(joules: float, intensity: Intensity) -> float:
    """Grams of CO2 equivalent for ``joules`` of electricity."""
    return joules / J_PER_KWH * intensity.value_g_per_kwh


def of(run: Run, chosen: Intensity | None) -> Intensity:
    """The intensity for a run: the one that is asked for now, the one it was made with, the world's.

    Raises:
        UsageError: it comes to the last, and codecarbon is not installed.
    """
    return chosen or run.intensity or world_average()


def chosen(zone: str | None, value: float | None) -> Intensity | None:
    """What is asked for, by name or in g/kWh, or ``None``: then the records, and at last the world average,
    decide.

    Raises:
        UsageError: both are given, or the one that is makes no sense.
    """
    if zone is not None and value is not None:
        raise UsageError("a grid is a zone or an intensity: give one of them, not both")
    if value is not None:
        return explicit(value)
    return None if zone is None else for_zone(zone)


def world_average() -> Intensity:
    """What stands in until a zone is given.

    Raises:
        UsageError: codecarbon is not installed.
    """
    table = _read("carbon_intensity_per_source.json")
    return Intensity(
        value_g_per_kwh=float(table["world_average"]),
        zone=WORLD,
        period="2018",
        source="IEA Global Energy & CO2 Status Report 2019",
        basis="average, location-based, generation",
    )


def for_zone(zone: str) -> Intensity:
    """The yearly average of a country, by its ISO 3166 alpha-3 code or its English name, in any case.

    Raises:
        UnknownName: no such country; the nearest names are suggested.
        UsageError: codecarbon is not installed.
    """
    mix = _read("global_energy_mix.json")
    wanted = zone.strip().casefold()
    for code, row in mix.items():
        if wanted in (code.casefold(), row["country_name"].casefold()):
            return Intensity(
                value_g_per_kwh=float(row["carbon_intensity"]),
                zone=f"{row['country_name']} ({code})",
                period=str(row["year"]),
                source=f"codecarbon {_version()}, global_energy_mix.json",
                basis="average, location-based, generation",
            )
    raise _unknown(zone.strip(), {code: row["country_name"] for code, row in mix.items()})


def explicit(value: float) -> Intensity:
    """The intensity a user states, in g/kWh.

    Raises:
        UsageError: it is not above 0, or beyond what any grid emits.
    """
    return Intensity(
        value_g_per_kwh=value,
        zone="as given",
        period="period not stated",
        source="stated by the user",
        basis="not stated",
    )


def _unknown(zone: str, countries: dict[str, str]) -> UnknownName:
    names = {name.casefold(): name for name in [*countries, *countries.values()]}
    if difflib.get_close_matches(zone.casefold(), names, n=1, cutoff=0.5):
        spelled = zone.upper() if len(zone) <= 3 else zone.title()
        return UnknownName("zone", spelled, names.values())
    return UnknownName("zone", zone, countries)


def _read(name: str) -> dict[str, Any]:
    spec = find_spec("codecarbon")
    if spec is None or spec.origin is None:
        raise UsageError(
            "grid intensities come with the package codecarbon, which is not installed: "
            "install it, or state the intensity yourself in g/kWh"
        )
    path = Path(spec.origin).parent / "data" / "private_infra" / name
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def _version() -> str:
    try:
        return version("codecarbon")
    except PackageNotFoundError:  # a source tree on the path
        return "(version unknown)"
