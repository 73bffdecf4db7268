"""Which meter of energy to believe: the best that works here, and why not those before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from leanmark import registry
from leanmark.errors import MeterError
from leanmark.meters.base import Component, Meter, Reading
from leanmark.record import Finding, Provenance

TOLERANCE = 0.10
"""Counters and power that differ by more are not of one mind. ml-energy/zeus issue 181 shows 43 %."""

TRIAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """``meter`` is ``None`` where nothing works; ``passed_over`` gives by name why the better ones do not."""

    meter: Meter[Any] | None
    passed_over: Mapping[str, str]


def choose(
    component: Component,
    candidates: Mapping[str, Meter[Any]] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Choice:
    """Try the meters of ``component``, best provenance first, and take the first that works.

    A meter that measures must show it: in ``TRIAL_S`` its counter has to move.
    """
    known = _registered(component) if candidates is None else candidates
    order = list(Provenance)
    ranked = sorted(known.items(), key=lambda pair: order.index(pair[1].provenance))
    passed_over: dict[str, str] = {}
    for name, meter in ranked:
        reason = meter.unavailable() or _fails(meter, sleep)
        if reason is None:
            meter.passed_over = passed_over
            return Choice(meter=meter, passed_over=passed_over)
        passed_over[name] = reason
        meter.close()
    return Choice(meter=None, passed_over=passed_over)


def best_energy_meter(component: Component = "processor") -> Meter[Any] | None:
    """The meter of ``choose``."""
    return choose(component).meter


def cross_check(counter: Reading, power: Reading) -> Finding | None:
    """What to say where a counter and a power sensor of one device disagree; ``None`` where they agree.

    Both cover about the same window; it is their mean powers that are compared.
    """
    counted_w = counter.value / counter.duration_s
    sampled_w = power.value / power.duration_s
    difference = counted_w / sampled_w - 1
    if abs(difference) <= TOLERANCE:
        return None
    explained = power.uncertainty is not None and abs(counted_w - sampled_w) <= (
        power.uncertainty / power.duration_s
    )
    return Finding(
        code="counter-against-power",
        message=f"the counter says {counted_w:.3g} W and the sampled power {sampled_w:.3g} W: "
        f"{difference:+.0%}, "
        + ("which the gaps between the samples can explain" if explained else "and one of them is wrong"),
    )


def _registered(component: Component) -> dict[str, Meter[Any]]:
    found: Iterable[tuple[str, Any]] = (
        (name, registry.load("meters", name)) for name in registry.rows("meters")
    )
    return {name: kind() for name, kind in found if getattr(kind, "covers", None) == component}


def _fails(meter: Meter[Any], sleep: Callable[[float], None]) -> str | None:
    """Why a meter that looks readable gives no reading."""
    if meter.provenance is Provenance.ESTIMATED_MODEL:
        return None  # it always answers
    try:
        token = meter.start()
        sleep(TRIAL_S)
        meter.stop(token)()
    except MeterError as error:
        return str(error)
    return None
