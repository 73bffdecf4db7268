"""Windows at a fixed request rate, on a clock that only steps and sleeping move."""

from __future__ import annotations

import pytest

from leanmark.protocol import messages
from leanmark.worker import runner


class Clock:
    def __init__(self, step_s: float) -> None:
        self.now = 100.0
        self.began: list[float] = []
        self._step_s = step_s

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def step(self) -> None:
        self.began.append(self.now - 100.0)
        self.now += self._step_s


def paced(
    monkeypatch: pytest.MonkeyPatch, step_s: float, seconds: float, rate_hz: float
) -> tuple[messages.Window, list[float]]:
    clock = Clock(step_s)
    monkeypatch.setattr(runner, "time", clock)
    return runner.run_paced(clock.step, seconds, rate_hz), clock.began


def test_a_step_begins_at_every_tick_and_the_window_is_whole_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    window, began = paced(monkeypatch, 0.02, 0.55, 10.0)
    assert began == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert window.steps == 5
    assert window.wall_s == pytest.approx(0.5)


def test_a_window_shorter_than_a_tick_holds_one(monkeypatch: pytest.MonkeyPatch) -> None:
    window, _ = paced(monkeypatch, 0.02, 0.05, 10.0)
    assert window.steps == 1
    assert window.wall_s == pytest.approx(0.1)


def test_what_cannot_keep_up_serves_fewer_and_stops_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    window, began = paced(monkeypatch, 0.25, 1.0, 10.0)
    assert began == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert window.steps == 4
    assert window.wall_s == pytest.approx(1.0)
