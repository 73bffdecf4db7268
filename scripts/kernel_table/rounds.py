"""Times contenders against one another in rounds, and states ratios with their intervals."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernel_table.contenders import Call, Contender
from kernel_table.inverted import InvertedCase
from kernel_table.layers import Case
from leanmark.statistics.stats import order_statistic_interval
from leanmark_kernels.ceilings import Ceilings

SLICE_US = 3000.0

COARSENESS = {"w16": 1, "w8": 2, "int8-exact": 2, "w4a8": 3}
"""How weights are stored, from precise to coarse; what is not named is in fp32."""

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Library over ours, above 1 ours is faster; the bounds are ``None`` after too few rounds."""

    library: str
    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One contender in one case. ``flops_share`` and ``read_share`` are of the machine's ceilings: above 1
    where an algorithm saves arithmetic, or weights lie in a cache."""

    name: str
    ours: bool
    weights: str
    time_us: float
    error: float
    flops_share: float
    read_share: float | None
    over_torch: Ratio | None = None
    over_best: Ratio | None = None


def measure(case: Case | InvertedCase, rounds: int, ceilings: Ceilings, with_compiled: bool) -> list[Line]:
    """The lines of ``case``, in the order of its contenders."""
    contenders, exact = case.contenders(with_compiled), case.exact()
    times = interleaved(contenders, rounds)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    lines = []
    for one in contenders:
        seconds = medians[one.name] / 1e6
        best = best_library(one, contenders, medians)
        lines.append(
            Line(
                name=one.name,
                ours=one.ours,
                weights=one.weights,
                time_us=medians[one.name],
                error=relative_error(one.output(), exact),
                flops_share=case.flops / seconds / ceilings.flops_per_s,
                read_share=one.bytes / seconds / ceilings.read_bytes_per_s if one.bytes else None,
                over_torch=ratio("torch", times["torch"], times[one.name]) if one.ours else None,
                over_best=ratio(best, times[best], times[one.name]) if one.ours else None,
            )
        )
    return lines


def best_library(ours: Contender, contenders: Sequence[Contender], medians: Mapping[str, float]) -> str:
    """The fastest one whose weights are at least as precise."""
    rivals = [
        one.name
        for one in contenders
        if not one.ours and COARSENESS.get(one.weights, 0) <= COARSENESS.get(ours.weights, 0)
    ]
    return min(rivals, key=lambda name: medians[name])


def interleaved(contenders: Sequence[Contender], rounds: int) -> dict[str, Times]:
    """Microseconds per call [rounds] by name, forward and backward in turn."""
    clock = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns

    def timed(call: Call, repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            call()
        return (clock() - begin) / repeats / 1e3

    repeats = {}
    for each in contenders:
        each.call()
        quickest = min(timed(each.call, 2) for _ in range(3))
        repeats[each.name] = max(1, round(SLICE_US / max(quickest, 0.5)))
    times: dict[str, list[float]] = {each.name: [] for each in contenders}
    gc.disable()
    for turn in range(rounds):
        for each in contenders if turn % 2 == 0 else contenders[::-1]:
            times[each.name].append(timed(each.call, repeats[each.name]))
    gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def relative_error(output: Tensor, exact: Tensor) -> float:
    """The largest one, over the largest output."""
    return float((output.double() - exact).abs().max() / exact.abs().max())


def ratio(name: str, library: Times, ours: Times) -> Ratio:
    """The median over the rounds, with its 95 % interval."""
    interval = order_statistic_interval(np.log(library / ours))
    if interval is None:
        return Ratio(name, float(np.median(library / ours)), None, None)
    return Ratio(name, math.exp(interval.value), math.exp(interval.low), math.exp(interval.high))
