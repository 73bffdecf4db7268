"""Which GPU is meant, on a machine whose GPUs are known; and that two runs never share one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark.devices import cuda
from leanmark.devices.cuda import Cuda
from leanmark.errors import DeviceBusy, MeterError, UsageError
from leanmark.measuring import environment, target
from leanmark.measuring.gpu_lock import GpuLock
from leanmark.measuring.target import Target
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.power import Constant

FIRST, SECOND = "GPU-11111111-1111", "GPU-22222222-2222"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PyTorch with CUDA, and two GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda, "version", lambda name: "2.13.0+cu130")
    boards = [FakeGpu(power=Constant(100.0), uuid=uuid) for uuid in (FIRST, SECOND)]
    with FakeNvml(boards, VirtualClock()).installed():
        yield


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Target("cuda", FIRST)),
        ("cuda", Target("cuda", FIRST)),
        ("cuda:1", Target("cuda", SECOND)),
        ("cpu", Target("cpu")),
    ],
)
def test_a_gpu_is_chosen_by_its_uuid(text: str | None, expected: Target, two: None) -> None:
    assert target.choose(text) == expected


@pytest.mark.parametrize(
    ("visible", "first"), [("1", SECOND), ("GPU-2222", SECOND), ("1,0", SECOND), (f"{FIRST},1", FIRST)]
)
def test_what_cuda_may_see_is_counted_from_there(
    visible: str, first: str, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert target.choose("cuda:0").gpu == first
    if "," not in visible:
        with pytest.raises(UsageError, match="there is no cuda:1; there is cuda:0 NVIDIA H100"):
            target.choose("cuda:1")


SLICES = ("MIG-33333333-0001", "MIG-33333333-0002")


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first of two GPUs is divided into two slices."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(cuda, "version", lambda name: "2.13.0+cu130")
    whole = FakeGpu(power=Constant(100.0), uuid=SECOND)
    with FakeNvml([replace(whole, uuid=FIRST, mig=True, slices=SLICES), whole], VirtualClock()).installed():
        yield


def test_a_board_that_mig_divides_is_refused_and_the_next_is_not(divided: None) -> None:
    why = (
        rf"NVIDIA H100 80GB HBM3 \({FIRST}\) is divided by MIG into 2 slices: leanmark measures whole boards"
    )
    with pytest.raises(UsageError, match=f"cuda:0 cannot be used here: {why}"):
        target.choose("cuda:0")
    assert target.choose("cuda:1") == Target("cuda", SECOND)
    assert cuda.boards()[0].slices == SLICES
    assert cuda.boards()[1].slices == ()


@pytest.mark.parametrize("name", [SLICES[1], f"MIG-{FIRST}/1/0", f"{SLICES[0]},{SLICES[1]}"])
def test_a_slice_is_refused_with_the_board_that_it_is_of(
    name: str, divided: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
    first = name.split(",")[0]
    with pytest.raises(UsageError, match=rf"{first} is a slice of NVIDIA H100 80GB HBM3 \({FIRST}\): leanm"):
        target.choose("cuda")
    assert target.choose() == Target("cpu")


def test_a_slice_of_no_board_here_is_one_all_the_same(divided: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-4444")
    assert "MIG-4444 is a slice: leanmark measures whole boards" in (Cuda().unavailable() or "")


def test_a_gpu_that_is_not_there_is_not_another(two: None) -> None:
    assert "there is no GPU GPU-4444 here" in (Cuda("GPU-4444").unavailable() or "")


def test_where_no_gpu_may_be_seen_the_processor_is_chosen(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert target.choose() == Target("cpu")
    with pytest.raises(UsageError, match="cuda cannot be used here: CUDA_VISIBLE_DEVICES allows no GPU"):
        target.choose("cuda")


def test_a_pytorch_without_cuda_is_named(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "version", lambda name: "2.13.0+cpu")
    assert target.choose() == Target("cpu")
    with pytest.raises(UsageError, match=r"PyTorch 2\.13\.0\+cpu is built without CUDA"):
        target.choose("cuda:1")


def test_without_a_driver_it_is_the_processor() -> None:
    with FakeNvml([], VirtualClock(), init_error=9).installed():
        assert target.choose() == Target("cpu")
        assert "no NVIDIA driver answers" in (Cuda().unavailable() or "")
        with pytest.raises(UsageError, match="no NVIDIA driver answers"):
            target.choose("cuda")


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "cdua:1"])
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"Unknown device '{text}'"):
        target.choose(text)


def test_choosing_imports_no_torch() -> None:
    program = (
        "import sys; from leanmark.measuring import target; target.choose(); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_which_of_equal_boards_it_is_identifies_no_machine(two: None) -> None:
    first, second = (environment.collect(gpu=uuid) for uuid in (FIRST, SECOND))
    assert first.machine["gpu"] == "NVIDIA H100 80GB HBM3"
    assert first.machine["gpu_capability"] == "9.0"
    assert first.software["nvidia_driver"] == "570.86"
    assert (first.machine_id, first.software_id) == (second.machine_id, second.software_id)
    assert (first.conditions["gpu_uuid"], second.conditions["gpu_index"]) == (FIRST, 1)
    assert (first.conditions["gpu_ecc"], first.conditions["gpu_mig"]) == (True, False)
    assert "gpu" not in environment.collect().machine


def test_a_board_that_is_not_there_is_named(two: None) -> None:
    from leanmark.devices.gpu_probe import GpuProbe

    with pytest.raises(MeterError, match="GPU-33333333"):
        GpuProbe("GPU-33333333")


def test_a_second_run_is_told_who_has_the_gpu(tmp_path: Path) -> None:
    first = GpuLock(FIRST, tmp_path)
    other = GpuLock(SECOND, tmp_path)
    with pytest.raises(DeviceBusy, match=rf"measures on {FIRST}: process \d+, .*choose another GPU"):
        GpuLock(FIRST, tmp_path)
    first.close()
    GpuLock(FIRST, tmp_path).close()
    other.close()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from leanmark.measuring.gpu_lock import GpuLock;"
        f"lock = GpuLock('{FIRST}', pathlib.Path(sys.argv[1])); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    GpuLock(FIRST, tmp_path).close()


def test_a_lock_that_another_user_made_is_read_only_and_locks_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    GpuLock(FIRST, tmp_path).close()

    def refused(*_: object) -> int:
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "open", refused)
    theirs = GpuLock(FIRST, tmp_path)
    with pytest.raises(DeviceBusy):
        GpuLock(FIRST, tmp_path)
    theirs.close()
