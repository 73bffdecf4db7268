"""One case of scripts/gpu_kernels.py: is it right, how long does it take, and how many joules."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gpu_kernel_energy
import torch
from gpu_ceilings import Ceilings
from gpu_kernel_cases import OURS, Case, Contest
from gpu_stage import Call, Stage
from torch import Tensor

from leanmark.statistics.stats import order_statistic_interval
from leanmark_kernels.triton import tuning

ROUNDS = 25
HOT_CALLS = 10

TOLERANCE = 2.0**-7
"""Of the largest output, the largest error: two units of the last place of bfloat16."""

TOLERANCE_L2 = 2.0**-8
"""Of the norm of the outputs, that of their errors: twice what rounding each to bfloat16 costs at most."""


def measure(case: Case, stage: Stage, ceilings: Ceilings | None) -> dict[str, Any]:
    """Everything that is written of ``case``; without times where its result is wrong."""
    begun = time.monotonic()
    torch.manual_seed(1)
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
        contest = case.build(stage.device)
        found = {
            "case": case.name,
            "target": case.target,
            **checked(contest),
            "bytes": contest.bytes,
            "operations": contest.operations,
            "unit": contest.unit,
            "machine": stage.machine(),
        }
        if found["right"]:
            found |= performance(contest, stage, ceilings)
    stage.release()
    return {**found, "seconds": time.monotonic() - begun}


def checked(contest: Contest) -> dict[str, Any]:
    """Whether every configuration and then the chosen one give the exact result; wrong ones are told."""
    exact = contest.exact()
    flat = as_rows(exact)

    def judge(output: Tensor) -> str | None:
        off = errors(output, flat)
        return None if within(off) else f"wrong: its error is {off[0]:.2g} of the largest output"

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with tuning.judged(judge):
            contest.calls[OURS]()
    poison = torch.full_like(exact, torch.nan, dtype=torch.bfloat16)
    del poison  # the allocator hands its memory out again: an output that is not written shows
    off = errors(contest.calls[OURS](), exact)
    return {"right": within(off), "error": off[0], "error_l2": off[1], "refused": _refused(told)}


def _refused(told: Sequence[warnings.WarningMessage]) -> list[str]:
    """What tuning says of configurations; other warnings are not about the case."""
    texts = [str(one.message) for one in told]
    return [text for text in texts if "is not taken" in text or "cannot be compiled" in text]


def performance(contest: Contest, stage: Stage, ceilings: Ceilings | None) -> dict[str, Any]:
    before = stage.sensors()
    cold = timed({name: stage.graph(call, 1) for name, call in contest.calls.items()}, 1, stage, cold=True)
    loops = {name: stage.graph(call, HOT_CALLS) for name, call in contest.calls.items()}
    hot = timed(loops, HOT_CALLS, stage, cold=False)
    after = stage.sensors()
    asked = dict(list(loops.items())[:2])  # ours, and the library that the target is set against
    return {
        "cold": cold,
        "hot": hot,
        "roofline_share": {
            name: ceilings.share(contest.unit, contest.operations, contest.bytes, us * 1e-6)
            for name, us in cold["median_us"].items()
            if ceilings is not None
        },
        "energy_hot": gpu_kernel_energy.measure(stage, asked, HOT_CALLS),
        "sensors_before": before,
        "sensors_after": after,
    }


def as_rows(exact: Tensor) -> Tensor:
    """[*, N] as [rows, N], as the kernels write it; images [N, C, H, W] as pixels [N H W, C]."""
    return exact.permute(0, 2, 3, 1).flatten(0, 2) if exact.dim() == 4 else exact.flatten(0, -2)


def errors(output: Tensor, exact: Tensor) -> tuple[float, float]:
    """The largest error relative to the largest magnitude, and the norm of all relative to the norm.

    ``exact`` is float64; NaN where ``output`` has one.
    """
    difference = output.double() - exact
    return float(difference.abs().max() / exact.abs().max()), float(difference.norm() / exact.norm())


def within(off: tuple[float, float]) -> bool:
    """NaN is not."""
    return off[0] <= TOLERANCE and off[1] <= TOLERANCE_L2


def timed(replays: Mapping[str, Call], calls: int, stage: Stage, *, cold: bool) -> dict[str, Any]:
    """Microseconds per call of each contender in each round, and what follows from them.

    Cold: after a flush of L2. Hot: after the same calls.
    """
    for replay in replays.values():
        replay()
    marks: dict[str, list[tuple[Any, Any]]] = {name: [] for name in replays}
    for round in range(ROUNDS):
        order = list(replays) if round % 2 == 0 else list(replays)[::-1]
        for name in order:
            stage.hold()
            (stage.flush if cold else replays[name])()
            begin = stage.mark()
            replays[name]()
            marks[name].append((begin, stage.mark()))
    stage.synchronize()
    times_us = {
        name: [1e6 * stage.seconds(begin, end) / calls for begin, end in pairs]
        for name, pairs in marks.items()
    }
    ours, *others = times_us
    return {
        "times_us": times_us,
        "median_us": {name: statistics.median(times) for name, times in times_us.items()},
        "ratios": {name: ratio(times_us[name], times_us[ours]) for name in others},
    }


def ratio(library: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    rounds = [theirs / mine for theirs, mine in zip(library, ours, strict=True)]
    interval = order_statistic_interval(rounds)
    if interval is None:
        raise ValueError(f"{len(rounds)} rounds are too few for an interval")
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def summary(found: Mapping[str, Any]) -> str:
    """In one line."""
    if "cold" not in found:
        return f"{found['case']}: WRONG, error {found['error']:.1e}, {found['error_l2']:.1e} in norm"
    ratios = ", ".join(
        f"{each['value']:.2f}x {name} [{each['low']:.2f}, {each['high']:.2f}]"
        for name, each in found["cold"]["ratios"].items()
    )
    ours = found["cold"]["median_us"][OURS]
    parts = [
        f"{ours:.1f} us",
        f"{found['bytes'] / ours / 1e6:.2f} TB/s, {found['operations'] / ours / 1e6:.0f} TFLOP/s",
        *(f"{share:.0%} of the roof" for name, share in found["roofline_share"].items() if name == OURS),
        f"error {found['error']:.1e}",
        f"{ratios} (target {found['target']}x)",
        *_joules(found["energy_hot"]),
        *(f"{len(found['refused'])} configurations refused" for _ in found["refused"][:1]),
    ]
    return f"{found['case']}: {'; '.join(parts)}"


def _joules(energy: Mapping[str, Any]) -> Iterator[str]:
    if "missing" in energy:
        yield f"no energy: {energy['missing']}"
        return
    yield f"{energy['per_call'][OURS]['joules']:.3g} J"
    for name, one in energy["ratios"].items():
        yield f"{one['value']:.2f}x in J of {name} +- {one['uncertainty']:.2f}"
