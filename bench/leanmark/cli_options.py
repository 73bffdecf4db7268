"""Options that several commands share, already turned into what they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click


def carbon(command: Callable[..., Any]) -> Callable[..., Any]:
    """``grid``: the intensity that is asked for, or ``None``."""

    @click.option("--zone", metavar="NAME", help="Country whose grid turns joules into CO2, e.g. FRA.")
    @click.option("--intensity", type=float, metavar="G", help="Grid intensity in gCO2e per kWh instead.")
    @functools.wraps(command)
    def wrapped(*args: Any, zone: str | None, intensity: float | None, **kwargs: Any) -> Any:
        from leanmark.reading import carbon

        return command(*args, grid=carbon.chosen(zone, intensity), **kwargs)

    return wrapped


def site(command: Callable[..., Any]) -> Callable[..., Any]:
    """``site``: what is stated of the place and the device, which may be nothing."""

    @click.option(
        "--pue", type=float, metavar="X", help="Facility energy over IT energy; not applied without."
    )
    @click.option("--embodied", type=float, metavar="KG",
                  help="CO2e of making the device, for its share in a full SCI.")  # fmt: skip
    @click.option(
        "--lifetime", type=float, metavar="YEARS", help="How long the device is used: 3 unless given."
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any, pue: float | None, embodied: float | None, lifetime: float | None, **kwargs: Any
    ) -> Any:
        from leanmark.reading import sci

        return command(*args, site=sci.site(pue, embodied, lifetime), **kwargs)

    return wrapped


def threshold(command: Callable[..., Any]) -> Callable[..., Any]:
    """``asked``: the differences that count."""

    @click.option(
        "--margin", "margins", multiple=True, metavar="METRIC=N%",
        help="The difference that counts, such as latency=1%; by default 2%, of accuracy 1%.",
    )  # fmt: skip
    @click.option("--floor", "floors", multiple=True, metavar="METRIC=AMOUNT",
                  help="What is smaller never counts, such as latency=100ns or memory=1MiB.")  # fmt: skip
    @functools.wraps(command)
    def wrapped(*args: Any, margins: tuple[str, ...], floors: tuple[str, ...], **kwargs: Any) -> Any:
        from leanmark import thresholds

        return command(*args, asked=thresholds.parse(margins, floors), **kwargs)

    return wrapped
