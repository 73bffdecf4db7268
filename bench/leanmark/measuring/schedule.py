"""Who runs which block when. Pure: everything follows from the plan, the cores and the seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from leanmark.errors import BadPlan
from leanmark.protocol.layout import Layout
from leanmark.record import SamplingPlan

PARENTS = 5
"""Preloaded parents that processes are forked from in turn.

Processes of one parent share its address layout, which is one sample however many they are; five parents
are enough for a t interval and few enough to keep in memory.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One set of processes, one per variant: all in this layout, all pinned to these cores."""

    index: int
    parent: int
    layout: Layout
    cores: tuple[int, ...]
    rounds: int


def replica(
    plan: SamplingPlan, threads: int, cores: Sequence[int], index: int, rounds: int | None = None
) -> Replica:
    """The ``index``-th replica of any contest. Every variant of one shares its cores; the next moves on.

    Raises:
        BadPlan: more threads than cores.
    """
    places = lanes(threads, cores)
    parent = index % PARENTS
    draw = random.Random(f"{plan.seed}/parent/{parent}")
    layout = Layout(
        hash_seed=draw.randrange(1, 2**32),
        padding_bytes=draw.randrange(4096),
        threads=threads,
        wait="passive",
    )
    return Replica(
        index=index,
        parent=parent,
        layout=layout,
        cores=places[index % len(places)],
        rounds=plan.rounds if rounds is None else rounds,
    )


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
