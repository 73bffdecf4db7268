"""Processes of their own, one after another: what differs between them is what an interval must cover."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import torch

from kernel_table import cases, rounds
from kernel_table.slices import Slices, place, workers
from leanmark_kernels import ceilings
from leanmark_kernels.ceilings import Ceilings

PATIENCE_S = 180.0
"""That a process waits for its processors, all in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What each process measures."""

    titles: tuple[str, ...]
    threads: int
    rounds: int
    with_compiled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one process measured, by the title of the case."""

    ceilings: Ceilings
    most_adds_per_s: float
    slices: int
    disturbed: int
    samples: Mapping[str, list[rounds.Sample]]


def run(request: Request, processes: int) -> Iterator[Found]:
    """Each as soon as it has ended."""
    most_adds_per_s = 0.0
    for index in range(processes):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(_measure, request, index, most_adds_per_s).result()
        most_adds_per_s = found.most_adds_per_s
        yield found


def _measure(request: Request, index: int, most_adds_per_s: float) -> Found:
    torch.set_grad_enabled(False)
    torch.set_num_threads(request.threads)
    cores = sorted(os.sched_getaffinity(0))
    if request.threads > 1:
        # operators of ours ask once what waking torch's threads costs
        place(workers(partial(torch.ones(1 << 22).add_, 1), request.threads, cores), cores)
    highest = ceilings.measure()
    slices = Slices(cores=cores, most_adds_per_s=most_adds_per_s, patience_s=PATIENCE_S)
    slices.calibrate()
    samples = {}
    for case in cases.called(request.titles):
        torch._dynamo.reset()
        samples[case.title] = rounds.sampled(case, slices, request.rounds, index, request.with_compiled)
    return Found(
        ceilings=highest,
        most_adds_per_s=slices.most_adds_per_s,
        slices=slices.count,
        disturbed=slices.disturbed,
        samples=samples,
    )
