"""The time of a step on the device itself, and what the host adds to it. Pure.

``host_overhead_s`` is not measured: it is the latency less the device's own time, block by block. Where the
device is the slower of the two it is near 0, for launches hide behind the work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from leanmark.record import Measurement, Series, Summary
from leanmark.statistics import rounds, stats


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """``cold`` is the device's time with its cache emptied before."""

    hot: Summary
    cold: Summary | None
    host_overhead: Summary


def on_device(measurement: Measurement | None) -> OnDevice | None:
    """Of the latency pass of one case; ``None`` where the device is the host."""
    latency = measurement.find("latency_s") if measurement else None
    device = measurement.find("device_time_s") if measurement else None
    if measurement is None or latency is None or device is None:
        return None
    cold = measurement.find("cold_device_time_s")
    return OnDevice(
        hot=_summary(device),
        cold=_summary(cold) if cold else None,
        host_overhead=_summary(_difference(latency, device)),
    )


def _difference(latency: Series, device: Series) -> Series:
    """Of the blocks that both have: same process, same round."""
    times = {(block.process, block.round): block.value for block in device.blocks}
    return Series(
        metric="host_overhead_s",
        meter=device.meter,
        blocks=tuple(
            replace(block, value=block.value - times[block.process, block.round])
            for block in latency.blocks
            if (block.process, block.round) in times
        ),
    )


def _summary(series: Series) -> Summary:
    return stats.summarize(rounds.bounded(series))
