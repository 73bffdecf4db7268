"""scripts/gpu_kernels.py, as far as it can be shown without a GPU."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from leanmark.testing.clock import VirtualClock

SCRIPTS = Path(__file__).parents[2] / "scripts"
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:leanmark_kernels runs its slower reference")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("gpu_kernels")
    for name in [name for name in sys.modules if name.startswith("gpu_")]:
        sys.modules.pop(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_kernels.py"])
    assert script.main() == 2
    assert "there is no CUDA GPU that torch can use here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("build", "arguments", "alike"),
    [
        ("weight_only", (4, 3, 256), 1),
        ("weight_only", (8, 3, 256), 1),
        ("dense", (20, 40, 64, "plain"), 2),
        ("dense", (20, 40, 64, "gelu"), 2),
        ("dense", (20, 40, 64, "residual"), 2),
        ("integer", (32, 64), 2),
        ("block_sparse", (256, 64, 0.5), 2),
        ("convolution", (1, 16, 6), 2),
        ("depthwise", (2, 16, 6, 3), 2),
    ],
)
def test_cases_compute_what_they_compare(
    script: ModuleType, build: str, arguments: tuple[Any, ...], alike: int
) -> None:
    """Ours, here by its reference, and the first ``alike - 1`` libraries give the exact result."""
    module, times = (importlib.import_module(name) for name in ("gpu_kernel_cases", "gpu_kernel_times"))
    torch.manual_seed(1)
    contest = getattr(module, build)(*arguments, CPU)
    assert next(iter(contest.calls)) == module.OURS
    for name, call in list(contest.calls.items())[:alike]:
        assert max(times.errors(call(), contest.exact())) < 2**-6, name
    assert contest.bytes > 0
    assert contest.operations > 0


def test_names_are_files_and_targets_are_those_of_the_issue(script: ModuleType) -> None:
    cases = list(importlib.import_module("gpu_kernel_cases").cases())
    assert len({case.name for case in cases}) == len(cases) == 40
    assert not [case.name for case in cases if "/" in case.name or " " in case.name]
    assert {case.name: case.target for case in cases}["w4a16-1x4096x4096"] == 1.8
    assert [case.name for case in script.chosen(["int8"])] == ["int8-4096x4096x4096", "int8-1024x4096x4096"]


def test_every_kernel_has_its_turn_before_any_has_its_second(script: ModuleType) -> None:
    names = [case.name for case in script.chosen([])]
    assert names[:11] == [
        "w4a16-1x8192x8192", "w8a16-1x8192x8192",
        "gemm-plain-8192", "gemm-gelu-8192", "gemm-residual-8192", "gemm-small-16x4096x4096",
        "depthwise-3x3-384-at-28", "blocks64-keeping-25-percent", "blocks128-keeping-25-percent",
        "int8-4096x4096x4096", "conv3x3-64-at-56",
    ]  # fmt: skip
    assert names[11] == "w4a16-16x8192x8192"


def test_a_ratio_is_the_median_over_rounds(script: ModuleType) -> None:
    times = importlib.import_module("gpu_kernel_times")
    found = times.ratio([2.0 + place / 10 for place in range(25)], [1.0] * 25)
    assert found == pytest.approx({"value": 3.2, "low": 2.7, "high": 3.7})


def test_errors_are_of_the_largest_and_of_the_norm(script: ModuleType) -> None:
    times = importlib.import_module("gpu_kernel_times")
    exact = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    assert times.errors(torch.tensor([[3.0, -4.5]]), exact) == pytest.approx((0.125, 0.1))
    assert not times.within(times.errors(torch.tensor([[3.0, float("nan")]]), exact))
    assert times.within((2**-7, 2**-8)) and not times.within((2**-7, 2**-7))


def test_images_are_compared_as_kernels_write_them(script: ModuleType) -> None:
    times = importlib.import_module("gpu_kernel_times")
    image = torch.arange(12.0).reshape(1, 2, 2, 3)
    rows = times.as_rows(image)
    assert rows.shape == (6, 2)
    assert rows[:, 1].tolist() == list(range(6, 12))
    assert times.as_rows(torch.zeros(2, 3, 4)).shape == (6, 4)


def test_the_roof_is_the_lower_of_two(script: ModuleType) -> None:
    roofs = importlib.import_module("gpu_ceilings").Ceilings(
        bfloat16=800e12, int8=1600e12, float32=50e12, read=4.0e12, copy=4.2e12
    )
    assert roofs.share("bfloat16", 8 * 10**11, 42 * 10**8, 2e-3) == pytest.approx(0.5)
    assert roofs.share("float32", 10**11, 42 * 10**8, 4e-3) == pytest.approx(0.5)
    assert roofs.floor_s("int8", 16 * 10**12, 1) == pytest.approx(0.01)


def test_joules_are_counted_from_update_to_update(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A board that draws 300 W runs calls of 50 and 150 us; its counter changes every 20 ms."""
    energy, stage = (importlib.import_module(name) for name in ("gpu_kernel_energy", "gpu_stage"))
    clock = VirtualClock(tick_s=1e-6)
    board = SimpleNamespace(
        counter=stage.Counter(lambda: int(clock() / 0.02) * 6000, 0.02), synchronize=lambda: None
    )
    monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=clock))
    replays = {"ours": lambda: clock.sleep(5e-4), "library": lambda: clock.sleep(15e-4)}
    found = energy.measure(board, replays, 10)
    ours, library = found["per_call"]["ours"], found["per_call"]["library"]
    assert ours["joules"] == pytest.approx(0.015, rel=0.02)
    assert library["joules"] == pytest.approx(0.045, rel=0.02)
    assert ours["watts"] == pytest.approx(300, rel=0.02)
    assert abs(ours["joules"] - 0.015) <= ours["uncertainty_j"] < 0.1 * 0.015
    assert found["ratios"]["library"]["value"] == pytest.approx(3, rel=0.03)
    assert 0 < found["ratios"]["library"]["uncertainty"] < 0.3
    assert found["gain"] == 0.1


def test_without_a_counter_the_reason_is_written(script: ModuleType) -> None:
    energy = importlib.import_module("gpu_kernel_energy")
    assert energy.measure(SimpleNamespace(counter="no NVIDIA driver answers"), {}, 10) == {
        "missing": "no NVIDIA driver answers"
    }


BREAKS = """
import os, sys, time
import gpu_kernels, gpu_kernel_cases as cases
from gpu_kernel_cases import Case

def raises(device): raise ValueError("broken")
def dies(device): os._exit(7)
def hangs(device): time.sleep(60)
def wrong(device):
    contest = good(device)
    right = contest.calls["ours"]
    return cases.Contest({**contest.calls, "ours": lambda: right() * 1.5}, contest.exact, 1, 1)

good = next(cases.cases(large=False)).build
everything = [Case(name, 1.0, build) for name, build in (
    ("raises", raises), ("dies", dies), ("wrong", wrong), ("hangs", hangs), ("good", good))]
gpu_kernels.cases = lambda large=True: everything
gpu_kernels.CASE_S = 8.0
sys.exit(gpu_kernels.main())
"""


@pytest.mark.slow
def test_a_case_that_fails_dies_hangs_or_is_wrong_costs_only_itself(tmp_path: Path) -> None:
    program = tmp_path / "breaks.py"
    program.write_text(BREAKS)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(program), "--rehearse", "--folder", str(tmp_path)]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    ended = run()
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "failed or wrong: dies, hangs, raises, wrong" in ended.stdout
    folder = tmp_path / "gpu-kernels"
    assert "ValueError: broken" in (folder / "raises.failed").read_text()
    assert (folder / "dies.failed").read_text().startswith("its process ended with code 7; it last said")
    assert (folder / "hangs.failed").read_text().startswith("it took longer than 8 s, and it was ended")
    assert json.loads((folder / "wrong.failed").read_text())["error"] == pytest.approx(0.5, abs=0.01)
    found = json.loads((folder / "good.json").read_text())
    assert found["right"] and found["cold"]["ratios"]["cuBLAS bf16"]["value"] > 0
    assert found["energy_hot"]["per_call"]["ours"]["joules"] > 0
    assert set(found["roofline_share"]) == {"ours", "cuBLAS bf16"}
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run().returncode == 1
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_what_there_is_no_time_for_is_left_for_the_next_run(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--rehearse", "--folder", str(tmp_path), "--seconds", "1"])
    assert script.main() == 1
    assert "no time for w4a16-3x256x256 and what follows: run this again" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["x", "--rehearse", "--folder", str(tmp_path), "--first", "0"])
    assert script.main() == 0
    assert not list((tmp_path / "gpu-kernels").iterdir())


def test_the_table_says_what_was_reached_what_failed_and_what_is_missing(
    script: ModuleType, tmp_path: Path
) -> None:
    table = importlib.import_module("gpu_table")

    def case(name: str, low: float, high: float, energy: dict[str, Any]) -> None:
        ratio = {"value": (low + high) / 2, "low": low, "high": high}
        found = {
            "case": name, "target": 1.8, "roofline_share": {"ours": 0.655}, "energy_hot": energy,
            "cold": {"median_us": {"ours": 12.34}, "ratios": {"cuBLAS bf16": ratio, "other": ratio}},
        }  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(found))

    joules = {
        "per_call": {"ours": {"joules": 0.00432, "uncertainty_j": 0.00004}},
        "ratios": {"cuBLAS bf16": {"value": 2.1, "uncertainty": 0.05}},
    }
    case("w4a16-16x8192x8192", 1.7, 1.75, {"missing": "no driver"})
    case("w4a16-1x8192x8192", 1.9, 2.1, joules)
    case("w4a16-32x8192x8192", 1.7, 1.9, joules)
    (tmp_path / "ceilings.json").write_text("{}")
    (tmp_path / "gemm-plain-8192.failed").write_text("ValueError")
    _, *rows = table.lines(tmp_path)
    assert rows[0] == (
        "| w4a16-1x8192x8192 | 12.3 | cuBLAS bf16 | 2.00 [1.90, 2.10] | 1.8 | yes | 66% "
        "| 0.00432 ± 4e-05 | 2.10 ± 0.05 |"
    )
    assert rows[1].endswith("| 1.73 [1.70, 1.75] | 1.8 | no | 66% | no driver |  |")
    assert "| not resolved |" in rows[2]
    assert rows[3] == "\nFailed or wrong: gemm-plain-8192."
    assert rows[4].startswith("\nNot measured: w8a16-1x8192x8192, gemm-gelu-8192, ")
