"""scripts/gpu_kernels.py, as far as it can be shown without a GPU."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:leanmark_kernels runs its slower reference")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module("gpu_kernels")
    for name in ("gpu_kernels", "gpu_kernel_cases"):
        sys.modules.pop(name, None)


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
    module = importlib.import_module("gpu_kernel_cases")
    torch.manual_seed(1)
    contest = getattr(module, build)(*arguments, CPU)
    assert next(iter(contest.calls)) == module.OURS
    for name, call in list(contest.calls.items())[:alike]:
        assert script.error(call(), contest.exact()) < 2**-6, name
    assert contest.bytes > 0
    assert contest.operations > 0


def test_names_are_files_and_targets_are_those_of_the_issue(script: ModuleType) -> None:
    cases = list(importlib.import_module("gpu_kernel_cases").cases())
    assert len({case.name for case in cases}) == len(cases) == 40
    assert not [case.name for case in cases if "/" in case.name or " " in case.name]
    assert {case.name: case.target for case in cases}["w4a16-1x4096x4096"] == 1.8
    assert [case.name for case in script.chosen(["int8"])] == ["int8-4096x4096x4096", "int8-1024x4096x4096"]


def test_a_ratio_is_the_median_over_rounds(script: ModuleType) -> None:
    found = script.ratio([2.0 + place / 10 for place in range(25)], [1.0] * 25)
    assert found == pytest.approx({"value": 3.2, "low": 2.7, "high": 3.7})


def test_what_is_done_is_not_done_again(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong case and one that fails leave a file each, and do not keep the others from being done."""
    asked: list[str] = []

    def measure(case: SimpleNamespace) -> dict[str, Any]:
        asked.append(case.name)
        if case.name == "breaks":
            raise ValueError("broken")
        return {"case": case.name, "right": case.name != "is wrong", "error": 1.0}

    everything = [SimpleNamespace(name=name) for name in ("breaks", "is wrong", "is right")]
    monkeypatch.setattr(script, "cases", lambda: everything)
    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(script.kernels, "available", lambda: True)
    monkeypatch.setenv(script.choices.FOLDER, str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu_kernels.py", "--folder", str(tmp_path)])
    assert script.main() == 1
    assert script.main() == 1
    assert asked == ["breaks", "is wrong", "is right"]
    folder = tmp_path / "gpu-kernels"
    assert json.loads((folder / "is right.json").read_text())["right"]
    assert "ValueError: broken" in (folder / "breaks.failed").read_text()
    monkeypatch.setattr(
        sys, "argv", ["gpu_kernels.py", "--folder", str(tmp_path / "other"), "--seconds", "1"]
    )
    assert script.main() == 1
    assert len(asked) == 3
