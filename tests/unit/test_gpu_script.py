"""scripts/gpu.py without a GPU, and on a pretended one: what it does when, and that it can go on."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from leanmark import chain, plan, suite
from leanmark.errors import UsageError
from leanmark.measuring.target import Target
from leanmark.plan import Plan, Selection
from leanmark.protocol.messages import WorkloadSpec

SCRIPT = Path(__file__).parents[2] / "scripts/gpu.py"
UUID = "GPU-00000000-0000-0000-0000-000000000000"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
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
def pretended(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    Pretended.plans = []
    monkeypatch.setattr(gpu.target, "choose", lambda text: Target("cuda", UUID))
    monkeypatch.setattr(gpu, "Campaign", Pretended)
    monkeypatch.setattr(gpu, "_run", lambda command, on, seconds: True)
    return gpu


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
    assert (
        "too little time for check-first, kernels-first, convert, kernels, bert-inference-32-fewer-bits"
        in capsys.readouterr().out
    )
    assert pretended.main([*folder, "--minutes", "999"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "done").iterdir()} == set(pretended.PIECES)


def test_what_failed_is_tried_again_and_keeps_nothing_else_from_being_done(
    pretended: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretended, "_run", lambda command, on, seconds: command[0] != "gpu_kernels.py")
    assert pretended.main(["--folder", str(tmp_path), "--minutes", "999"]) == 1
    assert "failed or not finished: kernels-first, kernels\n" in capsys.readouterr().out
    left = set(pretended.PIECES) - {path.name for path in (tmp_path / "done").iterdir()}
    assert left == {"kernels-first", "kernels"}


def test_a_piece_that_does_not_fit_lets_a_shorter_one_go_first(pretended: ModuleType, tmp_path: Path) -> None:
    assert pretended.main(["--folder", str(tmp_path), "--minutes", "5.4"]) == 0
    done = {path.name for path in (tmp_path / "done").iterdir()}
    assert {"check-first", "kernels-first", "convert", "kernels", "check", "cnn-inference-32"} <= done
    assert "bert-inference-32" not in done


def test_every_larger_model_and_batch_of_the_main_job_has_a_contest(gpu: ModuleType) -> None:
    found = {(one.workload, one.phase, one.batch) for one in gpu.CONTESTS}
    wanted = {
        (name, phase, batch)
        for name, batches in suite.GPU_BATCHES.items()
        for phase, several in batches.items()
        for batch in several
    }
    assert wanted < found
    assert len({one.name for one in gpu.CONTESTS}) == len(gpu.CONTESTS)
    assert max(one.cost_s for one in gpu.CONTESTS) < 450, "does not fit into ten minutes"
    by_name = {one.name: one.techniques for one in gpu.CONTESTS}
    assert "int8dq" in by_name["gpt2-decode-inference-32-fewer-bits"]
    assert "int8dq" not in by_name["gpt2-decode-inference-1-fewer-bits"]
    assert "int8-exact" in by_name["gpt2-decode-inference-1-fewer-bits"]
    assert "bf16+kernels(batch=1)+cuda_graphs" in by_name["gpt2-decode-inference-1-replayed"]
    assert "int8dq+cuda_graphs" in by_name["bert-inference-32-replayed"]


def test_each_piece_is_a_process_that_sees_this_gpu_only_and_ends_in_time(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[list[str], dict[str, Any]]] = []

    def run(command: list[str], **rest: Any) -> Any:
        asked.append((command[1:], rest))
        return gpu.gpu_watch.Ended("", "", "")

    monkeypatch.setattr(gpu.target, "choose", lambda text: Target("cuda", UUID))
    monkeypatch.setattr(gpu.gpu_watch, "run", run)
    gpu.main(["--folder", str(tmp_path), "--device", "cuda:3", "kernels-first", "bert-inference-32"])
    [(kernels, rest), (contest, _)] = asked
    assert [Path(kernels[0]).name, *kernels[1:3]] == ["gpu_kernels.py", "--folder", str(tmp_path)]
    assert kernels[-2:] == ["--first", "11"]
    assert contest[-2:] == ["--contest", "bert-inference-32"]
    assert "--device" not in contest
    assert rest["environment"]["CUDA_VISIBLE_DEVICES"] == UUID
    seconds = float(kernels[kernels.index("--seconds") + 1])
    assert 500 < seconds < rest["total_s"] < 570


def test_its_contests_are_of_one_gpu_and_leave_nothing_out_silently(
    pretended: ModuleType, tmp_path: Path
) -> None:
    for contest in pretended.CONTESTS:
        assert pretended.main(["--folder", str(tmp_path), "--contest", contest.name]) == 0
    for contest, made in zip(pretended.CONTESTS, Pretended.plans, strict=True):
        assert made.gpu == UUID
        assert made.sampling.timeout_s == 180
        assert made.sampling.energy_rounds * made.sampling.energy_processes >= 6, "no interval of energy"
        assert {case.device for case in made.cases} == {"cuda"}
        wanted = {chain.spell(chain.parse(text)) for text in ("fp32", *contest.techniques)}
        assert {case.technique for case in made.cases} == wanted, contest.name
        assert len({case.pair_key for case in made.cases}) == 1


@pytest.mark.slow
def test_all_kinds_of_pieces_can_be_rehearsed_without_a_gpu(tmp_path: Path) -> None:
    """The processes are real, and so is all that happens between them; only the GPU is not."""
    here = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--rehearse", "--folder", str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {path.name for path in (tmp_path / "done").iterdir()} == {
        "check-first", "convert", "check", "kernels-first", "kernels", "mlp-inference-4"
    }  # fmt: skip
    checks = [json.loads(line) for line in (tmp_path / "gpu-check.jsonl").read_text().splitlines()]
    assert {(one["name"], one["status"]) for one in checks} == {
        ("encoder inference fp32", "ok"),
        *((f"convert encoder {weights} of 4", "ok") for weights in ("fp32", "w8", "int8-exact", "sparse")),
    }
    [record] = tmp_path.glob("*/*.jsonl")
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert {"fp32", "bf16"} <= {line["case"]["technique"] for line in lines if "case" in line}
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert again.stdout == "gpu: nothing is left to do\n"


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
