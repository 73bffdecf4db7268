"""Times and memory of a GPU as a reader sees them, from records whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leanmark.measuring import memory_pass
from leanmark.protocol import messages
from leanmark.reading import memory
from leanmark.reading.device import on_device
from leanmark.record import Block, Case, Measurement, Series

CASE = Case(workload="bert", device="cuda")
MIB = 2**20


def series(metric: str, *values: float) -> Series:
    return Series(
        metric=metric,
        meter="cuda_events",
        blocks=tuple(
            Block(process=0, round=round_, order=0, value=value, loops=1, start_s=0.0)
            for round_, value in enumerate(values)
        ),
    )


def latency(*found: Series) -> Measurement:
    return Measurement(run="r", case=CASE, pass_name="latency", status="ok", work="w", series=found)


def test_the_host_adds_what_is_left_of_the_latency_block_by_block() -> None:
    found = on_device(
        latency(
            series("latency_s", 5e-3, 7e-3, 9e-3),
            series("device_time_s", 4e-3, 4e-3, 4e-3),
            series("cold_device_time_s", 6e-3, 6e-3, 6e-3),
        )
    )
    assert found is not None and found.cold is not None
    assert (found.hot.value, found.cold.value) == (4e-3, 6e-3)
    assert found.host_overhead.value == pytest.approx(3e-3)
    assert found.host_overhead.metric == "host_overhead_s"


def test_a_round_that_has_no_device_time_has_no_overhead() -> None:
    device = series("device_time_s", 4e-3, 4e-3)
    found = on_device(latency(series("latency_s", 5e-3, 5e-3, 90.0), device))
    assert found is not None
    assert found.host_overhead.count == 2
    assert found.host_overhead.value == pytest.approx(1e-3)


def test_on_a_processor_there_is_nothing_beside_the_latency() -> None:
    assert on_device(latency(series("latency_s", 5e-3))) is None
    assert on_device(None) is None


def reading(**changes: Any) -> messages.MemoryReading:
    plain = messages.MemoryReading(
        import_bytes=300 * MIB,
        loaded_bytes=400 * MIB,
        peak_bytes=500 * MIB,
        parts={"weights": 10 * MIB, "activations": 20 * MIB},
        host={},
        device={
            "gpu_peak_memory_bytes": 50 * MIB,
            "gpu_reserved_memory_bytes": 64 * MIB,
            "gpu_fragments_bytes": 14 * MIB,
            "gpu_board_memory_bytes": 600 * MIB,
        },
    )
    return replace(plain, **changes)


def measured(one: messages.MemoryReading, case: Case = CASE) -> Measurement:
    request = messages.PeakMemory(
        case=case,
        workload=messages.WorkloadSpec(name="bert"),
        folder="",
        place=messages.Place(cores=(0,), threads=1),
        steps=3,
    )
    return memory_pass.record("r", "w", request, [one])


def test_memory_of_the_board_is_split_without_a_rest_that_nobody_explains() -> None:
    record = measured(reading())
    working = record.find("working_memory_bytes")
    assert working is not None
    assert (working.values, working.meter) == ((50.0 * MIB,), "torch_cuda")
    found = memory.split(record)
    assert found is not None
    assert found.peak == {
        "weights": 10 * MIB,
        "activations": 20 * MIB,
        "workspace": 20 * MIB,
        "fragmentation": 14 * MIB,
        "driver, libraries and other processes": 536 * MIB,
    }
    assert found.of_board
    assert sum(found.peak.values()) == 600 * MIB
    assert found.steady == {}


def test_without_a_gpu_working_memory_is_the_hosts() -> None:
    working = measured(reading(device={}), replace(CASE, device="cpu")).find("working_memory_bytes")
    assert working is not None
    assert (working.values, working.meter) == ((200.0 * MIB,), "host_memory")


def test_memory_of_the_host_is_never_told_as_the_gpus() -> None:
    record = measured(reading(device={}))
    assert record.find("working_memory_bytes") is None
    assert [finding.code for finding in record.findings] == ["no-gpu-memory"]
    found = memory.split(record)
    assert found is not None
    assert not found.of_board
