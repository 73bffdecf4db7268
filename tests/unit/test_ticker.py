from __future__ import annotations

import threading

from leanmark.meters.ticker import Ticker
from leanmark.testing.clock import VirtualClock


def test_acts_are_repeated_until_stopped_and_not_after() -> None:
    ticker, done, calls = Ticker(), threading.Event(), []

    def act() -> float:
        calls.append(threading.current_thread().name)
        if len(calls) == 3:
            done.set()
        return 1e-3

    stop = ticker.repeat(act, 1e-3)
    assert done.wait(10.0)
    stop()
    count = len(calls)
    done.clear()
    other = ticker.repeat(lambda: done.set() or 60.0, 0.0)  # type: ignore[func-returns-value]
    assert done.wait(10.0)
    other()
    assert len(calls) == count
    assert set(calls) == {"leanmark-meter"}
    ticker.close()


def test_a_sooner_act_overtakes_one_that_is_waited_for() -> None:
    ticker, done = Ticker(), threading.Event()
    ticker.repeat(lambda: 60.0, 3600.0)

    def act() -> float:
        done.set()
        return 60.0

    ticker.repeat(act, 0.0)
    assert done.wait(10.0)
    ticker.close()


def test_closing_ends_the_thread_and_it_can_start_again() -> None:
    ticker, done = Ticker(), threading.Event()
    ticker.repeat(lambda: 60.0, 60.0)
    ticker.close()
    assert "leanmark-meter" not in {thread.name for thread in threading.enumerate()}

    def act() -> float:
        done.set()
        return 60.0

    ticker.repeat(act, 0.0)
    assert done.wait(10.0)
    ticker.close()


def test_the_virtual_clock_acts_at_the_same_times() -> None:
    clock, times = VirtualClock(start_s=0.0, tick_s=0.0), []

    def act() -> float:
        times.append(clock())
        return 2.0

    stop = clock.repeat(act, 0.5)
    clock.sleep(5.0)
    stop()
    clock.sleep(5.0)
    assert times == [0.5, 2.5, 4.5]
    assert clock() == 10.0
