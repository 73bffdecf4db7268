from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmark.errors import BadPlan
from leanmark.measuring import schedule
from leanmark.plan import FULL


@given(seed=st.integers(0, 1000), round_=st.integers(-1, 50), variants=st.integers(1, 12))
def test_an_order_is_a_permutation_and_follows_from_the_seed(seed: int, round_: int, variants: int) -> None:
    order = schedule.order(seed, 0, round_, variants)
    assert sorted(order) == list(range(variants))
    assert order == schedule.order(seed, 0, round_, variants)


def test_every_variant_runs_first_about_equally_often() -> None:
    firsts = Counter(schedule.order(0, 0, round_, 4)[0] for round_ in range(400))
    assert set(firsts) == {0, 1, 2, 3}
    assert min(firsts.values()) > 60  # 100 expected; 60 is beyond 4 standard deviations


def test_replicas_take_turns_on_parents_and_cores() -> None:
    made = [schedule.replica(FULL, 1, (2, 5), index) for index in range(7)]
    assert [replica.cores for replica in made] == [(2,), (5,), (2,), (5,), (2,), (5,), (2,)]
    assert [replica.parent for replica in made] == [0, 1, 2, 3, 4, 0, 1]
    assert len({replica.layout for replica in made}) == schedule.PARENTS
    assert made[0].layout == made[5].layout


def test_a_replica_with_two_threads_gets_two_cores() -> None:
    made = [schedule.replica(FULL, 2, (0, 1, 2), index) for index in range(3)]
    assert {replica.cores for replica in made} == {(0, 1)}


def test_another_seed_gives_other_layouts() -> None:
    one = schedule.replica(FULL, 1, (0,), 0)
    assert schedule.replica(replace(FULL, seed=1), 1, (0,), 0).layout != one.layout


def test_rounds_are_the_plans_unless_stated() -> None:
    assert schedule.replica(FULL, 1, (0,), 0).rounds == FULL.rounds
    assert schedule.replica(FULL, 1, (0,), 0, rounds=33).rounds == 33


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(BadPlan, match="4 threads need 4 cores; this process may use 2"):
        schedule.replica(FULL, 4, (0, 1), 0)
