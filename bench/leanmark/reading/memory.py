"""What the memory of a process is made of, at its peak and between steps. Pure.

Each split sums up to the whole: what no part explains is its last part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leanmark.record import Measurement
from leanmark.statistics import stats

_TENSORS = ("weights", "gradients", "optimizer_state")
"""What is held between steps too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Bytes by what they are for, in the order they come to be.

    ``peak`` ends with the workspace of the steps, ``steady`` with what is cached between them. ``shared_out``
    is the steady memory with every shared page divided among its users (PSS), ``own`` that which no other
    process has (USS); ``None`` where the kernel does not say. ``left_out`` is what leanmark itself took of
    the process; it is in none of the others. ``of_board``: ``peak`` is that of a GPU, not of the host.
    """

    peak: Mapping[str, float]
    steady: Mapping[str, float]
    shared_out: float | None = None
    own: float | None = None
    left_out: float | None = None
    of_board: bool = False


def split(measurement: Measurement | None) -> Split | None:
    """Of the memory pass of one case; ``None`` where it has none."""
    if measurement is None or measurement.status != "ok":
        return None
    if measurement.find("gpu_peak_memory_bytes") is not None:
        return Split(peak=_on_gpu(measurement), steady={}, of_board=True)
    return Split(
        peak=_split(measurement, "peak_memory_bytes", (*_TENSORS, "activations"), "workspace"),
        steady=_split(measurement, "steady_memory_bytes", (*_TENSORS, "allocator_slack"), "caches"),
        shared_out=_value(measurement, "pss_memory_bytes"),
        own=_value(measurement, "uss_memory_bytes"),
        left_out=_value(measurement, "leanmark_memory_bytes"),
    )


def _split(measurement: Measurement, whole: str, names: Sequence[str], rest: str) -> dict[str, float]:
    total = _value(measurement, whole)
    imported = _value(measurement, "import_memory_bytes")
    if total is None or imported is None:
        return {}
    if _value(measurement, "weights_bytes") is None:  # then they are in what is left
        rest = f"model and {rest}"
    before = _value(measurement, "interpreter_memory_bytes") or 0.0
    # the records of leanmark's first versions have it in that figure
    alone = _value(measurement, "leanmark_memory_bytes") is not None
    parts = {"interpreter" if alone else "interpreter with leanmark": before, "imports": imported - before}
    for name in names:
        value = _value(measurement, f"{name}_bytes")
        if value is not None:
            parts[name.replace("_", " ")] = value
    return {name: value for name, value in parts.items() if value} | {rest: total - sum(parts.values())}


def _on_gpu(measurement: Measurement) -> dict[str, float]:
    """What the whole board has in use: of the peak of the allocator, what it keeps besides, and the rest."""
    parts = {
        name.replace("_", " "): value
        for name in (*_TENSORS, "activations")
        if (value := _value(measurement, f"{name}_bytes"))
    }
    peak, reserved, board = (
        _value(measurement, f"gpu_{name}_memory_bytes") or 0.0 for name in ("peak", "reserved", "board")
    )
    return {
        **parts,
        "workspace": peak - sum(parts.values()),
        "fragmentation": reserved - peak,
        "driver, libraries and other processes": board - reserved,
    }


def _value(measurement: Measurement, metric: str) -> float | None:
    series = measurement.find(metric)
    return stats.summarize(series).value if series else None
