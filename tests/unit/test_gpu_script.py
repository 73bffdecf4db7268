"""scripts/gpu.py without a GPU, and on a pretended one: what it does when, and that it can go on."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from leanmark import chain, plan
from leanmark.errors import UsageError
from leanmark.measuring.target import Target
from leanmark.plan import Plan, Selection
from leanmark.protocol.messages import WorkloadSpec

SCRIPT = Path(__file__).parents[2] / "scripts/gpu.py"
UUID = "GPU-00000000-0000-0000-0000-000000000000"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_script", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


class Pretended:
    """A campaign that measures nothing."""

    plans: list[Plan]

    def __init__(self, made: Plan, folder: Path, notify: object) -> None:
        self.plans.append(made)
        self.measurements: list[Any] = []
        self.path = folder / "run.jsonl"

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run_all(self) -> None: ...


@pytest.fixture
def pretended(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    Pretended.plans = []
    monkeypatch.setattr(gpu.target, "choose", lambda text: Target("cuda", UUID))
    monkeypatch.setattr(gpu, "Campaign", Pretended)
    monkeypatch.setattr(gpu, "_script", lambda name, arguments, on, left_s: name)
    yield gpu


def test_without_a_gpu_it_says_so(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(text: str) -> Target:
        raise UsageError("cuda cannot be used here: no NVIDIA driver answers")

    monkeypatch.setattr(gpu.target, "choose", refuse)
    assert gpu.main(["--folder", str(tmp_path)]) == 2
    assert "no GPU can be used: cuda cannot be used here: no NVIDIA driver" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_it_goes_on_where_it_stopped(
    pretended: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path)]
    assert pretended.main([*folder, "check", "bert-inference-32"]) == 0
    assert {path.name for path in (tmp_path / "done").iterdir()} == {"check", "bert-inference-32"}
    assert pretended.main([*folder, "--minutes", "0"]) == 0
    assert "too few for kernels: run this again to go on" in capsys.readouterr().out
    assert pretended.main([*folder, "--minutes", "999"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert len(Pretended.plans) == len(pretended.CONTESTS)


def test_what_failed_is_tried_again(
    pretended: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pretended, "_script", lambda *_: None)
    assert pretended.main(["--folder", str(tmp_path), "check"]) == 1
    assert not list((tmp_path / "done").iterdir())


def test_its_contests_are_of_one_gpu_and_leave_nothing_out_silently(
    pretended: ModuleType, tmp_path: Path
) -> None:
    pretended.main(["--folder", str(tmp_path), "--minutes", "999"])
    for contest, made in zip(pretended.CONTESTS, Pretended.plans, strict=True):
        assert made.gpu == UUID
        assert {case.device for case in made.cases} == {"cuda"}
        wanted = {chain.spell(chain.parse(text)) for text in ("fp32", *contest.techniques)}
        assert {case.technique for case in made.cases} == wanted, contest.name
        assert len({case.pair_key for case in made.cases}) == 1


def test_the_main_job_on_a_gpu_is_that_of_the_larger_models() -> None:
    made = plan.make(Selection(device="cuda", gpu=UUID), plan.QUICK)
    names = {case.workload for case in made.cases}
    assert {"resnet50", "bert", "gpt2-prefill", "gpt2-decode"} < names
    batches = {case.batch for case in made.cases if case.workload == "resnet50"}
    assert batches == {1, 64, 256}
    assert {case.backend for case in made.cases} == {"eager"}
    assert not [case for case in made.cases if case.workload == "gpt2-decode" and case.phase == "training"]
    assert made.sampling.timeout_s >= 600
    techniques = {case.technique for case in made.cases}
    assert {"tf32", "fp16", "fp8", "int4wo", "sparse24", "compile", "checkpointing"} < techniques


def test_the_main_job_on_a_processor_did_not_grow() -> None:
    made = plan.make(Selection(workloads=(WorkloadSpec(name="cnn"),)), plan.QUICK)
    assert {case.technique for case in made.cases} == set(plan.TECHNIQUES)
    assert made.gpu == ""
