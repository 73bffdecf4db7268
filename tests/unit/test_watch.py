"""What the conditions of a GPU do to a round: on a board whose state is set by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from leanmark.devices.gpu_probe import GpuProbe
from leanmark.machine import disturbance
from leanmark.machine.gpu_disturbance import GpuSample, foreign, gpu_flags, power_capped
from leanmark.measuring.watch import Watch
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import NOT_SUPPORTED, FakeGpu, FakeNvml, GpuFault
from leanmark.testing.power import Constant

UUID = "GPU-00000000-0000-0000-0000-000000000000"


@pytest.fixture
def nvml() -> Iterator[FakeNvml]:
    fake = FakeNvml([FakeGpu(power=Constant(100.0))], VirtualClock())
    with fake.installed():
        yield fake


def become(nvml: FakeNvml, **state: Any) -> None:
    nvml.gpus[0] = replace(nvml.gpus[0], **state)


def test_every_reading_has_its_unit(nvml: FakeNvml) -> None:
    become(nvml, held_ns={0: 5_000_000_000, 1: 2_000_000_000}, processes=(os.getpid(),))
    assert GpuProbe(UUID).read() == GpuSample(
        gpu_reasons=0,
        gpu_thermal_s=2.0,
        gpu_power_s=5.0,
        gpu_clock_hz=1.98e9,
        gpu_memory_clock_hz=1.98e9,
        gpu_temperature_c=60,
        gpu_limit_w=700.0,
        gpu_ecc_errors=0,
        gpu_foreign=0,
    )


@pytest.mark.parametrize(
    ("state", "flags"),
    [
        ({}, ()),
        ({"event_reasons": 0x1}, ()),  # idle between rounds
        ({"event_reasons": 0x4}, ()),  # power cap: told, no fault of the round
        ({"event_reasons": 0x8}, ("gpu_slowed",)),
        ({"event_reasons": 0x20}, ("gpu_slowed",)),
        ({"event_reasons": 0x40}, ("gpu_slowed",)),
        ({"event_reasons": 0x80}, ("gpu_slowed",)),
        ({"held_ns": {1: 1}}, ("gpu_slowed",)),  # over before anybody looked
        ({"held_ns": {0: 1}}, ()),
        ({"processes": (os.getpid(), 1)}, ("gpu_shared",)),
        ({"ecc_errors": 1}, ("gpu_ecc",)),
        ({"limit_w": 500.0}, ("gpu_limit",)),
    ],
)
def test_what_makes_a_round_a_bad_one(nvml: FakeNvml, state: dict[str, Any], flags: tuple[str, ...]) -> None:
    become(nvml, processes=(os.getpid(),))
    probe = GpuProbe(UUID)
    before = probe.read()
    become(nvml, **state)
    assert gpu_flags(before, probe.read()) == flags


def test_power_capping_is_told_and_sets_nothing_aside(nvml: FakeNvml) -> None:
    with Watch(sorted(os.sched_getaffinity(0))[:1], UUID) as watch:
        before = watch.look()
        after = replace(before, gpu=replace(before.gpu, gpu_reasons=0x4))  # type: ignore[type-var]
        assert watch.flags(before, before) == watch.flags(before, after) == ()
        [finding] = watch.findings()
        assert finding.code == "power-capped"
        assert finding.message == "the GPU was at its power limit in 1 of 2 rounds"
        assert (after.temperature_c, after.clock_hz) == (60, 1.98e9)
    assert power_capped(GpuSample(gpu_power_s=1.0), GpuSample(gpu_power_s=1.5))


def test_on_a_processor_no_driver_is_asked() -> None:
    silent = FakeNvml([], VirtualClock(), init_error=9).installed()
    with silent, Watch(sorted(os.sched_getaffinity(0))[:1]) as watch:
        seen = watch.look()
        assert seen.gpu is None and seen.clock_hz is None
        assert seen.temperature_c == seen.machine.temperature_c
        assert watch.findings() == ()


def test_what_a_board_does_not_tell_is_unobserved_not_fine(nvml: FakeNvml) -> None:
    silent = ("nvmlDeviceGetViolationStatus", "nvmlDeviceGetTotalEccErrors")
    become(nvml, faults=(GpuFault(kind="error", code=NOT_SUPPORTED, calls=silent),))
    sample = GpuProbe(UUID).read()
    assert disturbance.unobserved(sample) == ("gpu_thermal_s", "gpu_power_s", "gpu_ecc_errors")
    assert gpu_flags(sample, sample) == ()
    [finding] = disturbance.findings(disturbance.unobserved(sample))
    assert "memory errors of the GPU, throttling of the GPU for heat" in finding.message


@pytest.mark.parametrize(
    ("ours", "others"),
    [([], 0), ([True], 0), ([True, False, False], 2), ([False], None), ([False, False], None)],
)
def test_a_container_that_knows_no_process_cannot_tell(ours: list[bool], others: int | None) -> None:
    assert foreign(ours) == others
