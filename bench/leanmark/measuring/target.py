"""Which device a run is for. Asks the driver, never torch: the parent stays free of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leanmark import registry
from leanmark.devices.cuda import Board, Cuda, visible
from leanmark.errors import MeterError, UsageError
from leanmark.meters.base import Meter
from leanmark.meters.energy import best_energy_meter
from leanmark.meters.energy import choose as best_of
from leanmark.meters.nvml import Gpu
from leanmark.meters.nvml_energy import NvmlEnergy
from leanmark.meters.nvml_power import NvmlPower


@dataclass(frozen=True, slots=True)
class Target:
    """``device`` is the name in a case; ``gpu`` the UUID of the board, empty on a processor.

    The number of a GPU is no part of a case: it depends on the machine and on who else uses it.
    """

    device: str
    gpu: str = ""


def choose(text: str | None = None) -> Target:
    """The device that ``text`` means (``cpu``, ``cuda``, ``cuda:1``); without it a GPU if there is one.

    Raises:
        UsageError: no such kind of device, or it cannot be used here, and why.
    """
    if text is None:
        return _gpu(0) if Cuda().unavailable() is None else Target("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if match is None:
        known = registry.rows("devices")
        if text not in known:
            raise UsageError(
                f"Unknown device '{text}': it is {' or '.join(known)}, or cuda:N for the N-th GPU"
            )
        return Target(text)
    return _gpu(int(match[1] or 0), text)


def energy_meter(gpu: str) -> Meter[Any] | None:
    """The best meter of the board ``gpu``, or of the processor where that is empty."""
    if not gpu:
        return best_energy_meter()
    meters: dict[str, Meter[Any]] = {
        "nvml_energy": NvmlEnergy(Gpu(gpu)),
        "nvml_power": NvmlPower(Gpu(gpu)),
    }
    return best_of("gpu", meters).meter


def _gpu(number: int, text: str = "cuda") -> Target:
    found = _visible()
    if found and number >= len(found):
        names = ", ".join(f"cuda:{place} {one.name}" for place, one in enumerate(found))
        raise UsageError(f"there is no cuda:{number}; there is {names}")
    uuid = found[number].uuid if found else ""
    reason = Cuda(uuid).unavailable()
    if reason is not None:
        raise UsageError(f"{text} cannot be used here: {reason}")
    return Target("cuda", uuid)


def _visible() -> Sequence[Board]:
    try:
        return visible()
    except MeterError:
        return ()  # the device says why
