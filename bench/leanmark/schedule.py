"""Who runs which block when. Pure: everything follows from the plan, the cores and the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from leanmark.errors import BadPlan
from leanmark.layout import Layout
from leanmark.record import SamplingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One set of processes, one per variant: all in this layout, all pinned to these cores."""

    index: int
    layout: Layout
    cores: tuple[int, ...]


def replicas(plan: SamplingPlan, threads: int, wait: str, cores: Sequence[int]) -> tuple[Replica, ...]:
    """The replicas of a contest. Every variant of one shares its cores; the next one moves on.

    Raises:
        BadPlan: more threads than cores.
    """
    places = lanes(threads, cores)
    made = []
    for index in range(plan.processes):
        draw = random.Random(f"{plan.seed}/replica/{index}")
        layout = Layout(
            hash_seed=draw.randrange(1, 2**32),
            padding_bytes=draw.randrange(4096),
            threads=threads,
            wait=wait,
        )
        made.append(Replica(index=index, layout=layout, cores=places[index % len(places)]))
    return tuple(made)


def lanes(threads: int, cores: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """``cores`` in groups of ``threads``; what is left over stays unused.

    Raises:
        BadPlan: more threads than cores.
    """
    if threads > len(cores):
        raise BadPlan(f"{threads} threads need {threads} cores; this process may use {len(cores)}")
    count = len(cores) // threads
    return tuple(tuple(cores[lane * threads : (lane + 1) * threads]) for lane in range(count))


def order(seed: int, replica: int, round_: int, variants: int) -> tuple[int, ...]:
    """The order of the variants in one round: a permutation drawn from the seed."""
    draw = random.Random(f"{seed}/order/{replica}/{round_}")
    return tuple(draw.sample(range(variants), variants))
