"""A worker's session on a device that is behind its host: what it waits for, gives back and reports."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanmark import registry
from leanmark.devices.base import Step
from leanmark.devices.cpu import Cpu
from leanmark.devices.torch_cuda import TorchCuda
from leanmark.measuring.outcome import failure
from leanmark.meters.host_memory import Held
from leanmark.protocol import messages
from leanmark.protocol.failure import as_error
from leanmark.protocol.process import allowed_cores
from leanmark.record import Case
from leanmark.testing.clock import VirtualClock
from leanmark.testing.torch_cuda import FakeTorchCuda
from leanmark.worker import serve
from leanmark.worker.prepare import run
from leanmark.workloads.mlp import Mlp

CASE = Case(workload="mlp", batch=4, threads=torch.get_num_threads())
SPEC = messages.WorkloadSpec(name="mlp")


class OnCpu(TorchCuda):
    """Steps on the CPU and keeps the book of a GPU, so that every call of the seam is seen."""

    name = "cpu"

    def busy_s(self, step: Step, times: int, host_s: float) -> float | None:
        step()
        return 1e-9


class Device(Cpu):
    fake = FakeTorchCuda(VirtualClock())

    def accelerator(self) -> TorchCuda:
        return OnCpu(self.fake)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    real: Callable[..., Any] = registry.load
    Device.fake = FakeTorchCuda(VirtualClock())
    monkeypatch.setattr(
        registry, "load", lambda kind, name: Device if kind == "devices" else real(kind, name)
    )
    return Device.fake.log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mlp")
    workload = Mlp()
    quick = replace(Mlp.recipe, epochs=1)  # type: ignore[type-var]
    workload.recipe = quick  # type: ignore[misc]
    run(workload, "mlp", (), made, ("eager",))
    return made


def opened(folder: Path) -> serve.Session:
    session = serve.Session()
    session.handle(
        messages.Open(
            case=CASE,
            workload=SPEC,
            folder=str(folder),
            place=messages.Place(cores=allowed_cores(), threads=CASE.threads),
            warmup_s=0.01,
            block_s=0.001,
            judge_quality=False,
        )
    )
    return session


@pytest.fixture(autouse=True)
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "disable", lambda: None)
    monkeypatch.setattr(serve, "_settle", lambda place, backend: None)


def test_a_block_is_waited_for_flushed_and_its_memory_given_back(log: list[str], folder: Path) -> None:
    session = opened(folder)
    Device.fake.hold(100, 900)
    log.clear()
    block = session.handle(messages.RunBlock(2))
    assert isinstance(block, messages.BlockTime)
    assert log.count("synchronize") == 2
    assert [entry for entry in log if "flush" in entry] == ["flush 268435456"]
    assert log[-1] == "empty_cache"
    assert (block.device_s, block.cold_device_s) == (1e-9, 1e-9)
    assert block.hash_bytes_per_s is None  # the core did not do the work


def test_the_record_says_which_gpu_it_was(log: list[str], folder: Path) -> None:
    session = serve.Session()
    answer = session.handle(
        messages.Open(
            case=CASE,
            workload=SPEC,
            folder=str(folder),
            place=messages.Place(cores=allowed_cores(), threads=CASE.threads),
            warmup_s=0.01,
            block_s=0.001,
            judge_quality=False,
        )
    )
    assert isinstance(answer, messages.Opened)
    assert answer.executed["gpu_uuid"] == "GPU-00000000-0000-0000-0000-000000000000"
    assert answer.executed["device"] == "cpu"


def test_peak_memory_of_the_device_is_beside_that_of_the_host(log: list[str], folder: Path) -> None:
    Device.fake.hold(7, 8)
    tare = serve.Tare(interpreter=Held(resident=5), imported=Held(resident=6), own=Held(resident=3))
    reading = serve.Session(tare=tare).handle(
        messages.PeakMemory(
            case=CASE,
            workload=SPEC,
            folder=str(folder),
            place=messages.Place(cores=allowed_cores(), threads=CASE.threads),
            steps=1,
        )
    )
    assert isinstance(reading, messages.MemoryReading)
    assert reading.device == {
        "gpu_peak_memory_bytes": 7,
        "gpu_reserved_memory_bytes": 8,
        "gpu_fragments_bytes": 1,
        "gpu_board_memory_bytes": 408,
    }
    assert (reading.import_bytes, reading.host["interpreter_memory_bytes"]) == (6, 5)
    assert reading.host["leanmark_memory_bytes"] == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
         "out_of_memory: CUDA out of memory. Tried to allocate 2 GiB"),
        (MemoryError(), "out_of_memory: of the host"),
    ],
)  # fmt: skip
def test_out_of_memory_is_a_result(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(serve.Session):
        def handle(self, request: messages.Request) -> object:
            raise error

    answer = serve._answer(Full(), messages.CheckAgain())
    assert isinstance(answer, messages.Failure)
    record = failure("run", CASE, "latency", "work", as_error(answer))
    assert (record.status, record.reason) == ("failed", reason)


def test_parameters_left_on_another_device_are_seen() -> None:
    from leanmark.backends.torch_executable import TorchExecutable

    class Mixed(TorchExecutable):
        def __init__(self) -> None:
            self._module = nn.Linear(2, 2, device="meta")
            self._inputs = torch.ones(1, 2)
            self._device = "cpu"

        def step(self) -> None: ...

    assert Mixed().executed().device == "cpu+meta"
