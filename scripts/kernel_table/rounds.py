"""Times contenders against one another in rounds, and states ratios with their intervals."""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kernel_table.cases import AnyCase
from kernel_table.contenders import Contender
from kernel_table.slices import Slices
from leanmark.statistics.stats import ratio_interval
from leanmark_kernels.ceilings import Ceilings

SLICE_US = 2000.0

COARSENESS = {"w16": 1, "w8": 2, "int8-exact": 2, "w4a8": 3}
"""How weights are stored, from precise to coarse; what is not named is in fp32."""

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contender in one process: microseconds per call [rounds], and the largest error."""

    name: str
    ours: bool
    weights: str
    bytes: int
    times_us: Times
    error: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Library over ours, above 1 ours is faster; named for one of them. No bounds after too few rounds."""

    against: str
    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One contender in one case, over all processes. ``flops_share`` and ``read_share`` are of the machine's
    ceilings: above 1 where an algorithm saves arithmetic, or weights lie in a cache. ``over_ours`` holds a
    library against the fastest of ours with weights as precise, the others hold ours against libraries."""

    name: str
    ours: bool
    weights: str
    time_us: float
    processes_us: tuple[float, ...]
    error: float
    flops_share: float
    read_share: float | None
    over_torch: Ratio | None = None
    over_best: Ratio | None = None
    over_ours: Ratio | None = None


def sampled(case: AnyCase, slices: Slices, rounds: int, order: int, with_compiled: bool) -> list[Sample]:
    """``case`` in this process. ``order`` seeds that in which contenders take turns."""
    slices.begin_case()
    contenders, exact = case.contenders(with_compiled), case.exact()
    turns = random.Random(order).sample(contenders, len(contenders))
    times = interleaved(turns, slices, rounds)
    return [
        Sample(
            name=one.name,
            ours=one.ours,
            weights=one.weights,
            bytes=one.bytes,
            times_us=times[one.name],
            error=relative_error(one.output(), exact),
        )
        for one in contenders
    ]


def lines(processes: Sequence[Sequence[Sample]], flops: int, ceilings: Ceilings) -> list[Line]:
    """The samples of all ``processes``, contender by contender."""
    by_name, wrong = times(processes), errors(processes)
    usual = typical(by_name)
    found = []
    for several in zip(*processes, strict=True):
        one = several[0]
        seconds = usual[one.name] / 1e6
        line = Line(
            name=one.name,
            ours=one.ours,
            weights=one.weights,
            time_us=usual[one.name],
            processes_us=tuple(float(np.median(sample.times_us)) for sample in several),
            error=wrong[one.name],
            flops_share=flops / seconds / ceilings.flops_per_s,
            read_share=one.bytes / seconds / ceilings.read_bytes_per_s if one.bytes else None,
        )
        found.append(replace(line, **_ratios(one, processes[0], usual, by_name)))
    return found


def times(processes: Sequence[Sequence[Sample]]) -> dict[str, list[Times]]:
    """Those of each contender, process by process."""
    return {several[0].name: [one.times_us for one in several] for several in zip(*processes, strict=True)}


def errors(processes: Sequence[Sequence[Sample]]) -> dict[str, float]:
    """The largest of each contender."""
    return {
        several[0].name: float(np.max([one.error for one in several]))
        for several in zip(*processes, strict=True)
    }


def typical(times: Mapping[str, Sequence[Times]]) -> dict[str, float]:
    """The median over the processes of their medians."""
    return {
        name: float(np.median([float(np.median(one)) for one in several])) for name, several in times.items()
    }


def _ratios(
    one: Sample, samples: Sequence[Sample], typical: Mapping[str, float], times: Mapping[str, list[Times]]
) -> dict[str, Any]:
    """Those of a line, by the name of its field."""
    ours = fastest([each for each in samples if each.ours and _coarseness(each) == _coarseness(one)], typical)
    if not one.ours:
        return {"over_ours": ratio(ours, times[one.name], times[ours])} if ours else {}
    precise = [each for each in samples if not each.ours and _coarseness(each) <= _coarseness(one)]
    best = fastest(precise, typical)
    return {
        "over_torch": ratio("torch", times["torch"], times[one.name]),
        "over_best": ratio(best, times[best], times[one.name]),
    }


def fastest(samples: Sequence[Sample], typical: Mapping[str, float]) -> str:
    """Its name, an empty one where there are none."""
    return min((one.name for one in samples), key=lambda name: typical[name], default="")


def _coarseness(sample: Sample) -> int:
    return COARSENESS.get(sample.weights, 0)


def interleaved(contenders: Sequence[Contender], slices: Slices, rounds: int) -> dict[str, Times]:
    """Microseconds per call [rounds] by name, forward and backward in turn."""
    repeats = {}
    for each in contenders:
        each.call()
        quickest = min(slices.time_us(each.call, 2) for _ in range(3))
        repeats[each.name] = max(1, round(SLICE_US / max(quickest, 0.5)))
    times: dict[str, list[float]] = {each.name: [] for each in contenders}
    gc.disable()
    for turn in range(rounds):
        for each in contenders if turn % 2 == 0 else contenders[::-1]:
            times[each.name].append(slices.time_us(each.call, repeats[each.name]))
    gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def relative_error(output: Tensor, exact: Tensor) -> float:
    """The largest one, over the largest output."""
    return float((output.double() - exact).abs().max() / exact.abs().max())


def ratio(name: str, library: Sequence[Times], ours: Sequence[Times]) -> Ratio:
    """Of the rounds of each process; the interval is across processes where there are enough of them."""
    pairs = enumerate(zip(library, ours, strict=True))
    logs = {process: np.log(theirs / own) for process, (theirs, own) in pairs}
    interval = ratio_interval(logs)
    if interval is None:
        medians = [float(np.median(values)) for values in logs.values()]
        return Ratio(name, float(np.exp(np.median(medians))), None, None)
    return Ratio(name, interval.value, interval.low, interval.high)
