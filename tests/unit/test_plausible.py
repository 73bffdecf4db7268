"""Times and outputs that cannot be: exact, with fakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from leanmark.backends.base import Array, Executable
from leanmark.devices.base import Accelerator, Step
from leanmark.errors import Implausible, LeanmarkError, OutOfTime, TookNoEffect, Unsupported, WorkerRaised
from leanmark.measuring.outcome import failure
from leanmark.models.executed import Executed
from leanmark.protocol.messages import BlockTime
from leanmark.record import Case
from leanmark.worker import plausible, runner


def timed(wall_s: float = 1.0, cpu_s: float = 1.0, device_s: float | None = None) -> BlockTime:
    return BlockTime(start_s=0.0, wall_s=wall_s, cpu_s=cpu_s, device_s=device_s)


class Forgetful(Accelerator):
    """A device that nothing waits for: its own clock knows how long it worked."""

    name, queues = "fake", True

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s

    def busy_s(self, step: Step, times: int, host_s: float) -> float | None:
        step()
        return self._step_s


class Model(Executable):
    """Adds ``noise`` to its outputs, more with every call."""

    def __init__(self, noise: float) -> None:
        self._noise, self._calls = noise, 0

    def step(self) -> None: ...

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        self._calls += 1
        return np.asarray(inputs + self._noise * self._calls, dtype=np.float32)

    def executed(self) -> Executed:
        return Executed(operators={}, threads=1, device="cpu")


def test_a_sound_block_is_passed_on() -> None:
    assert plausible.block(timed(), 3) == timed()


@pytest.mark.parametrize("wall_s", [0.0, -1e-9, math.nan, math.inf])
def test_time_that_stands_still_or_runs_backwards_is_named(wall_s: float) -> None:
    with pytest.raises(Implausible, match=r"the clock gave .* s for a block of 3 steps: it is broken"):
        plausible.block(timed(wall_s=wall_s), 3)


@pytest.mark.parametrize("cpu_s", [-1e-9, math.nan])
def test_the_cpu_clock_too(cpu_s: float) -> None:
    with pytest.raises(Implausible, match="the CPU clock gave"):
        plausible.block(timed(cpu_s=cpu_s), 3)


def test_single_steps_may_be_too_short_to_see_but_not_negative() -> None:
    plausible.samples([0.0, 1e-6])
    for broken in (-1e-9, math.nan):
        with pytest.raises(Implausible, match="for a step"):
            plausible.samples([1e-6, broken])


def test_a_device_that_worked_longer_than_its_step_took() -> None:
    assert plausible.on_device(timed(device_s=0.09), loops=10).device_s == 0.09
    with pytest.raises(Implausible, match="return before their work is done"):
        plausible.on_device(timed(device_s=0.5), loops=10)


def test_the_block_of_an_asynchronous_device_is_checked() -> None:
    block = BlockTime(start_s=0.0, wall_s=1e-3, cpu_s=1e-3, host_s=1e-3)
    with pytest.raises(Implausible, match="nothing waits for it"):
        runner.with_device_times(lambda: None, 1, block, Forgetful(step_s=0.1))


def test_outputs_have_to_repeat() -> None:
    inputs = np.ones((16, 4), dtype=np.float32)
    plausible.repeatable(Model(noise=0.0), inputs)
    with pytest.raises(Implausible, match="not deterministic"):
        plausible.repeatable(Model(noise=0.5), inputs)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Implausible("the clock is broken"), "invalid"),
        (TookNoEffect("it is not there"), "invalid"),
        (Unsupported("not here"), "skipped"),
        (WorkerRaised("ValueError", "traceback"), "failed"),
    ],
)
def test_what_becomes_of_a_case(error: LeanmarkError, status: str) -> None:
    one = failure("run", Case(workload="cnn"), "latency", "work", error)
    assert (one.status, one.series) == (status, ())
    assert str(error) in str(one.reason)


def test_a_case_that_had_no_turn_is_not_called_unsupported() -> None:
    one = failure("run", Case(workload="cnn"), "latency", "work", OutOfTime())
    assert (one.status, one.reason) == ("skipped", "the time budget ended before its turn came")
