"""The fixture on functions whose difference is large or none; no threshold on absolute times."""

from __future__ import annotations

import gc

import pytest

from leanmark.errors import UsageError
from leanmark.fixture import Leanmark


def busy(count: int) -> int:
    return sum(range(count))


def slow() -> int:
    return busy(9_000)


def fast() -> int:
    return busy(1_000)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only large differences are looked for here, which others on the machine may disturb."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def contest() -> Leanmark:
    return Leanmark()


def test_a_function_that_does_nine_times_less_is_better(contest: Leanmark) -> None:
    latency = contest.compare(baseline=slow, candidate=fast).latency
    assert latency.better
    assert latency.not_worse
    assert latency.ratio.high < 0.5
    assert str(latency).startswith("better: 0.")
    assert repr(latency) == str(latency)  # pytest shows it where an assertion fails


def test_a_function_that_does_nine_times_more_is_worse(contest: Leanmark) -> None:
    latency = contest.compare(fast, slow).latency
    assert latency.worse
    assert not latency.not_worse
    assert latency.ratio.low > 2


def test_one_process_never_shows_that_two_are_the_same(contest: Leanmark) -> None:
    latency = contest.compare(fast, fast).latency
    assert latency.verdict != "same"  # on a busy machine, anything else may come out
    assert latency.margin == pytest.approx(0.086, abs=0.001)


def test_setup_gives_both_the_same_argument_and_is_not_timed(contest: Leanmark) -> None:
    made: list[int] = []

    def setup() -> int:
        made.append(busy(200_000))
        return 1_000

    latency = contest.compare(lambda count: busy(9 * count), busy, setup=setup).latency
    assert latency.better
    assert len(made) > 2 * 30


def test_measure_states_the_interval_of_one_call(contest: Leanmark) -> None:
    summary = contest.measure(fast)
    assert summary.interval is not None
    assert 0 < summary.interval.low <= summary.value <= summary.interval.high
    assert summary.processes == 1


def test_what_a_function_raises_is_the_tests_own_error(contest: Leanmark) -> None:
    def broken() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        contest.compare(fast, broken)
    assert gc.isenabled()


def test_a_worker_of_xdist_is_refused(contest: Leanmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    with pytest.raises(UsageError, match="without pytest-xdist"):
        contest.compare(fast, slow)


def test_it_is_there_in_any_test_suite(leanmark: Leanmark) -> None:
    assert leanmark.compare(slow, fast).latency.not_worse
