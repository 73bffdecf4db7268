"""The seam to torch.cuda on a GPU whose truth is known: what is waited for, and whose time is whose."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from leanmark.devices.base import Accelerator
from leanmark.devices.torch_cuda import FLUSH_BYTES, TorchCuda
from leanmark.errors import Implausible, Unsupported
from leanmark.testing.clock import VirtualClock
from leanmark.testing.torch_cuda import FakeTorchCuda
from leanmark.worker import runner

HOST_S, KERNEL_S, COLD_S = 1e-4, 1e-3, 5e-4


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeTorchCuda:
    clock = VirtualClock(tick_s=0.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=clock, process_time=time.process_time))
    return FakeTorchCuda(clock, cold_s=COLD_S)


def near(seconds: float) -> object:
    return pytest.approx(seconds, rel=1e-6)


def test_a_block_ends_when_the_device_has_done_its_last_step(cuda: FakeTorchCuda) -> None:
    block = runner.run_block(lambda: cuda.launch(KERNEL_S, HOST_S), 10, TorchCuda(cuda))
    assert block.host_s == near(10 * HOST_S)
    assert block.wall_s == near(HOST_S + 10 * KERNEL_S)
    assert runner.run_block(lambda: cuda.launch(KERNEL_S, HOST_S), 10).wall_s == near(10 * HOST_S)


def test_work_queued_before_a_block_is_not_in_it(cuda: FakeTorchCuda) -> None:
    cuda.launch(5.0)
    assert runner.run_block(lambda: cuda.launch(KERNEL_S), 1, TorchCuda(cuda)).wall_s == near(KERNEL_S)


@pytest.mark.parametrize("host_s", [1e-5, 1e-2], ids=["device-bound", "host-bound"])
def test_the_device_time_leaves_launches_out_and_the_cold_one_starts_cold(
    cuda: FakeTorchCuda, host_s: float
) -> None:
    device = TorchCuda(cuda)

    def step() -> None:
        cuda.launch(KERNEL_S, host_s)

    block = runner.with_device_times(step, 20, runner.run_block(step, 20, device), device)
    assert block.device_s == near(KERNEL_S)
    assert block.cold_device_s == near(KERNEL_S + COLD_S)
    wall_s = block.wall_s / 20
    assert wall_s - (block.device_s or 0) == pytest.approx(max(host_s - KERNEL_S, 0), abs=1.1e-3 / 2)


@pytest.mark.parametrize(("launches", "times"), [(100, 8), (300, 2), (700, 1)])
def test_a_full_queue_does_not_make_the_host_part_of_the_device_time(launches: int, times: int) -> None:
    """Kernels of 2 us that take the host 10 us each: 8 steps of 300 are more than 1024 can wait."""
    clock = VirtualClock(tick_s=0.0)
    cuda, asked = FakeTorchCuda(clock), []

    def step() -> None:
        asked.append(1)
        for _ in range(launches):
            cuda.launch(2e-6, 1e-5)

    assert TorchCuda(cuda).busy_s(step, 8, launches * 1e-5) == near(launches * 2e-6)
    assert len(asked) == sum(count for count in (8, 4, 2, 1) if count >= times)


def test_a_step_of_more_launches_than_the_queue_holds_has_an_upper_bound() -> None:
    clock = VirtualClock(tick_s=0.0)
    cuda = FakeTorchCuda(clock)

    def step() -> None:
        for _ in range(2000):
            cuda.launch(2e-6, 1e-5)

    seconds = TorchCuda(cuda).busy_s(step, 8, 2e-2)
    assert seconds is not None and 2000 * 2e-6 < seconds < 2000 * 1e-5


def test_a_processor_has_no_time_of_its_own() -> None:
    block = runner.run_block(lambda: None, 1)
    assert runner.with_device_times(lambda: None, 1, block, runner.HOST) == block


def test_the_flush_is_larger_than_the_cache(cuda: FakeTorchCuda) -> None:
    TorchCuda(cuda).flush_cache()
    assert cuda.log == [f"flush {FLUSH_BYTES}"]


def test_samples_are_waited_for_one_by_one(cuda: FakeTorchCuda) -> None:
    samples = runner.run_samples(lambda: cuda.launch(KERNEL_S, HOST_S), 3, TorchCuda(cuda))
    assert list(samples) == [near(HOST_S + KERNEL_S)] * 3


def test_a_window_asks_for_little_more_than_it_holds(cuda: FakeTorchCuda) -> None:
    window = runner.run_window(lambda: cuda.launch(KERNEL_S), 1.0, TorchCuda(cuda))
    assert window.wall_s == near(window.steps * KERNEL_S)
    assert 1.0 <= window.wall_s < 1.04
    assert cuda.log.count("synchronize") < window.steps / 8


def test_memory_is_the_allocators_and_the_boards(cuda: FakeTorchCuda) -> None:
    device = TorchCuda(cuda)
    cuda.hold(400, 500)
    device.start_memory()
    cuda.hold(100, 500)
    cuda.hold(150, 500)
    assert device.memory() == {
        "gpu_peak_memory_bytes": 400,  # still held when counting began
        "gpu_reserved_memory_bytes": 500,
        "gpu_fragments_bytes": 100,
        "gpu_board_memory_bytes": 900,
    }


def test_only_much_unused_memory_is_given_back(cuda: FakeTorchCuda) -> None:
    device = TorchCuda(cuda)
    cuda.hold(100, 120)  # 2 % of the board's 1000
    device.release()
    assert "empty_cache" not in cuda.log
    cuda.hold(100, 121)
    device.release()
    assert cuda.log == ["empty_cache"]
    assert cuda.reserved == 100


def test_a_recording_launches_what_the_step_launched(cuda: FakeTorchCuda) -> None:
    device, asked = TorchCuda(cuda), []

    def step() -> None:
        asked.append(1)
        cuda.launch(KERNEL_S, HOST_S)
        cuda.launch(KERNEL_S, HOST_S)

    replay = device.capture(step)
    assert len(asked) == 4  # three to warm up, one recorded
    block = runner.run_block(replay, 5, device)
    assert len(asked) == 4
    assert block.wall_s == near(10 * KERNEL_S)
    assert cuda.log.count("replay") == 5


def test_what_cannot_be_recorded_says_so(cuda: FakeTorchCuda) -> None:
    calls = []

    def step() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.raises(Unsupported, match="CUDA graph: operation not permitted when stream is capturing$"):
        TorchCuda(cuda).capture(step)
    with pytest.raises(Unsupported, match="NVIDIA GPUs only"):
        Accelerator().capture(step)


def test_it_says_which_gpu_it_is(cuda: FakeTorchCuda) -> None:
    assert TorchCuda(cuda).facts() == {
        "gpu": "NVIDIA H200",
        "gpu_uuid": "GPU-00000000-0000-0000-0000-000000000000",
        "compute_capability": "9.0",
    }


def test_steps_that_nothing_waits_for_are_implausible(cuda: FakeTorchCuda) -> None:
    """The step works on a queue that synchronising does not know, which only the events see."""

    class Deaf(TorchCuda):
        def synchronize(self) -> None:
            pass

    def step() -> None:
        cuda.launch(KERNEL_S, 1e-5)

    device = Deaf(cuda)
    with pytest.raises(Implausible, match="steps return before their work is done"):
        runner.with_device_times(step, 10, runner.run_block(step, 10, device), device)
