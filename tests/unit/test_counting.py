"""What one step of a case does, by the backend and by the processor."""

from __future__ import annotations

import gc
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from leanmark.backends.base import Array, Executable, Work
from leanmark.backends.eager import Eager
from leanmark.backends.onnxruntime import OnnxRuntime
from leanmark.errors import StuckCounter
from leanmark.machine.counters import METRICS, Counted
from leanmark.meters.base import Reading
from leanmark.meters.instructions import Instructions
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.worker import counting

BATCH = 2
INPUTS = np.ones((BATCH, 16), dtype=np.float32)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    made = Artifact(tmp_path_factory.mktemp("counted") / "fp32")
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    made.save_module(module)
    OnnxRuntime().build(module, made, INPUTS)
    return made


WORK = Work(phase="inference", inputs=INPUTS, targets=None, threads=1, device="cpu")


def test_eager_counts_every_operator(artifact: Artifact) -> None:
    found = Eager().open(artifact, WORK).counted()
    assert found.counts["operator_calls"] == found.counts["allocations"] == 3
    assert found.counts["flops"] == 2 * BATCH * (16 * 32 + 32 * 4)


def test_onnx_runtime_counts_what_its_profile_tells(artifact: Artifact) -> None:
    found = OnnxRuntime().open(artifact, WORK).counted()
    assert found.counts == {"operator_calls": 2, "written_bytes": 4 * BATCH * (32 + 4)}  # the ReLU is fused
    assert set(found.missing) == set(METRICS) - {"instructions", *found.counts}


class Fake(Executable):
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        return inputs.astype(np.float32)

    def executed(self) -> Executed:
        return Executed(operators={}, threads=1, device="cpu")

    def counted(self) -> Counted:
        if self.error:
            raise self.error
        return Counted(counts={"flops": 3})


@pytest.fixture
def no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instructions, "unavailable", lambda self: "no counter here")


def test_instructions_are_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instructions, "unavailable", lambda self: None)
    monkeypatch.setattr(Instructions, "start", lambda self: 0)
    read = partial(Reading, value=8004.0, duration_s=1.0)
    monkeypatch.setattr(Instructions, "stop", lambda self, token: read)
    executable = Fake()
    assert counting.count(executable, 1).counts == {"flops": 3, "instructions": 1000}
    assert executable.steps == counting.STEPS == 8


def test_a_counter_that_fails_costs_no_other_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck() -> Reading:
        raise StuckCounter("it stood still")

    monkeypatch.setattr(Instructions, "unavailable", lambda self: None)
    monkeypatch.setattr(Instructions, "start", lambda self: 0)
    monkeypatch.setattr(Instructions, "stop", lambda self, token: stuck)
    assert counting.count(Fake(), 1) == Counted(
        counts={"flops": 3}, missing={"instructions": "it stood still"}
    )
    assert gc.isenabled()


@pytest.mark.usefixtures("no_counter")
def test_without_a_counter_the_reason_takes_its_place() -> None:
    assert counting.count(Fake(), 1) == Counted(
        counts={"flops": 3}, missing={"instructions": "no counter here"}
    )
    assert counting.count(Fake(), 2).missing == {"instructions": "the counter sees one thread of several"}


@pytest.mark.usefixtures("no_counter")
def test_a_model_that_cannot_be_counted_loses_only_its_counts() -> None:
    found = counting.count(Fake(torch.OutOfMemoryError("too much")), 1)
    assert found.counts == {}
    assert found.missing["operator_calls"] == "counting failed: OutOfMemoryError: too much"
