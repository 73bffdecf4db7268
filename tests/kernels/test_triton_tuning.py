"""How a configuration of a Triton kernel is chosen and remembered, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from leanmark_kernels.triton import choices, device_limits, gemm, split_k, tuning, weight_only
from leanmark_kernels.triton.choices import Choices
from leanmark_kernels.triton.configuration import Launch, config
from leanmark_kernels.triton.device_limits import Limits, on_paper
from leanmark_kernels.triton.tuning import Candidate

AMPERE, HOPPER = on_paper((8, 0)), on_paper((9, 0))


def product(rows: int, columns: int, depth: int, dtype: torch.dtype = torch.float16) -> gemm.Product:
    a, b, c = (
        torch.empty(shape, dtype=dtype, device="meta")
        for shape in ((rows, depth), (columns, depth), (rows, columns))
    )
    return gemm.Product(a, b, c)


def names(problem: gemm.Product, limits: Limits) -> set[str]:
    found = tuning.candidates(gemm.kernels(problem.input.dtype), problem, limits)
    return {each.kernel.name for each in found}


def test_descriptors_need_hopper_and_aligned_rows() -> None:
    assert names(product(128, 128, 128), HOPPER) == {"descriptor_gemm", "gemm"}
    assert names(product(128, 128, 128), AMPERE) == {"gemm"}
    assert names(product(128, 128, 129), HOPPER) == {"gemm"}
    assert names(product(128, 100, 128), HOPPER) == {"gemm"}
    assert names(product(128, 128, 128, torch.float32), HOPPER) == {"gemm"}


def test_no_candidate_is_beyond_the_shared_memory() -> None:
    small = Limits((8, 6), 99 * 1024, 80)
    for problem in (product(4096, 4096, 4096), product(16, 4096, 4096)):
        for each in tuning.candidates(gemm.kernels(torch.float16), problem, small):
            tile = (each.config["BLOCK_M"] + each.config["BLOCK_N"]) * each.config["BLOCK_K"] * 2
            assert tile * each.config.stages <= small.shared_bytes


def test_k_is_split_only_where_tiles_are_few() -> None:
    def splits(problem: gemm.Product) -> set[int]:
        found = tuning.candidates(gemm.kernels(torch.float16)[1:], problem, HOPPER)
        return {each.config["SPLIT_K"] for each in found}

    assert splits(product(16, 4096, 4096)) == {1, 4, 8}
    assert splits(product(8192, 8192, 4096)) == {1}


def test_a_gpu_that_nothing_fits_is_named() -> None:
    with pytest.raises(ValueError, match=r"no configuration of descriptor_gemm, gemm fits.*\(7, 5\)"):
        tuning.candidates(gemm.kernels(torch.float16), product(64, 64, 64), Limits((7, 5), 1024, 40))


def test_more_rows_than_a_grid_has_blocks_for_are_refused_with_the_reason() -> None:
    def found(rows: int, dtype: torch.dtype = torch.float32) -> list[Candidate]:
        input, output = (torch.empty(rows, 128, dtype=dtype, device="meta") for _ in "io")
        weight = torch.empty(1, 128, 128, dtype=torch.int8, device="meta")
        scale = torch.empty(1, 128, device="meta")
        problem = weight_only.Problem(input, weight, scale, None, output, 128, "none")
        return tuning.candidates((weight_only.FEW, weight_only.TILES), problem, HOPPER)

    assert {each.config["BLOCK_M"] for each in found(64 * 65535)} == {64}
    assert {each.config["BLOCK_M"] for each in found(128 * 65535, torch.float16)} == {128}
    with pytest.raises(ValueError, match="no configuration of weight_only_few, weight_only fits"):
        found(64 * 65535 + 1)
    with pytest.raises(ValueError, match="65536 blocks of 128 rows; a grid has at most 65535"):
        found(128 * 65535 + 1, torch.float16)


def test_only_from_hopper_on_a_launch_overlaps_the_one_before_it() -> None:
    """It waits by itself then, by an instruction that neither older GPUs nor the interpreter have."""
    output = torch.empty(1, device="meta")
    assert [split_k.overlaps(output, limits) for limits in (AMPERE, HOPPER)] == [False, True]
    assert not split_k.overlaps(torch.empty(1), HOPPER)
    shape = config(2, 1)
    assert Launch(None, (1,), {}, {}, shape).options() == {"num_warps": 2, "num_stages": 1}
    assert Launch(None, (1,), {}, {}, shape, waits=True).options()["launch_pdl"] is True


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A GPU on which the last candidate is the fastest; gives what was measured."""
    seen: list[str] = []

    def measure(found: list[Candidate], problem: object, limits: Limits) -> dict[Candidate, float]:
        seen.append(str(found[-1]))
        return {each: 1.0 / (place + 1) for place, each in enumerate(found)}

    monkeypatch.setenv(choices.FOLDER, str(tmp_path))
    monkeypatch.setattr(tuning, "measure", measure)
    monkeypatch.setattr(choices, "version", lambda package: "3.6.0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(tuning, "_known", {})
    choices.choices_of.cache_clear()
    yield seen
    choices.choices_of.cache_clear()


def choose(rows: int) -> str:
    return str(tuning.choose(gemm.kernels(torch.float16), product(rows, 64, 64), HOPPER))


def test_a_choice_is_measured_once_and_outlives_the_process(measured: list[str], tmp_path: Path) -> None:
    first = choose(64)
    assert first == measured[0] == choose(64) == choose(50)
    choices.choices_of.cache_clear()
    tuning._known.clear()
    assert choose(64) == first
    assert len(measured) == 1
    (path,) = tmp_path.iterdir()
    assert path.name == "nvidia-h200-triton-3.6.0.json"
    assert json.loads(path.read_text())["gemm float16 float16 M=64 N=64 K=64 none"]["choice"] == first
    choose(128)
    assert len(measured) == 2
    assert len(json.loads(path.read_text())) == 2


def test_a_choice_that_is_no_longer_in_the_space_is_measured_again(measured: list[str]) -> None:
    problem = product(64, 64, 64)
    choices.choices_of("NVIDIA H200").put(gemm.key(problem), "gemm BLOCK_M=7", 1.0)
    assert choose(64) == measured[0]


def test_a_choice_that_is_not_legal_for_this_problem_is_not_taken(measured: list[str]) -> None:
    kernels = gemm.kernels(torch.float16)
    tuning._known["NVIDIA H200", gemm.key(product(64, 64, 64))] = Candidate(kernels[0], kernels[0].space[0])
    assert kernels[0].why_not(product(64, 64, 64), kernels[0].space[0], HOPPER) is not None
    assert choose(64) == measured[0]


def test_nothing_is_measured_while_a_graph_is_captured(
    measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert choose(64).startswith("descriptor_gemm")
    assert measured == []


def test_choices_of_other_processes_are_kept(tmp_path: Path) -> None:
    mine, theirs = Choices(tmp_path / "x.json"), Choices(tmp_path / "x.json")
    mine.put("a", "one", 1.0)
    theirs.put("b", "two", 2.0)
    assert Choices(tmp_path / "x.json").known == {
        "a": {"choice": "one", "ms": 1.0},
        "b": {"choice": "two", "ms": 2.0},
    }


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_broken_file_is_said_and_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match="is ignored and will be replaced"):
        broken = Choices(path)
    assert broken.get("a") is None
    with pytest.warns(UserWarning, match="is ignored"):
        broken.put("a", "one", 1.0)
    assert Choices(path).get("a") == "one"


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Choices(tmp_path / "file" / "x.json")
    with pytest.warns(UserWarning, match=f"cannot be written.*Set {choices.FOLDER}"):
        kept.put("a", "one", 1.0)
    assert kept.get("a") == "one"


def test_limits_on_paper() -> None:
    assert (AMPERE.shared_bytes, HOPPER.shared_bytes) == (163 * 1024, 227 * 1024)
    assert not AMPERE.descriptors
    assert device_limits.of(torch.device("cpu")).descriptors


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_candidates_are_compiled_without_being_run_and_one_that_fails_costs_only_itself(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    program = Path(__file__).with_name("triton_jit.py")
    ended = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["compiled"] == {"weight_only": True, "weight_only_few": True, "combine": True}
    [(name, why)] = found["refused"].items()
    assert name == "weight_only BLOCK_M=16 BLOCK_N=48 SPLIT_K=1 STAGES=4 warps=4 stages=1"
    assert "power of 2" in why
    assert found["told"] == [f"{name} cannot be compiled here"]


@pytest.fixture
def wrong_but_fast(monkeypatch: pytest.MonkeyPatch) -> gemm.Product:
    """The first candidate leaves its output as it is, and is the fastest."""
    input, weight, output = (torch.zeros(64, 64, dtype=torch.float16) for _ in range(3))
    problem = gemm.Product(input, weight, output)
    found = tuning.candidates(gemm.kernels(torch.float16), problem, HOPPER)

    def run(launches: Sequence[Candidate]) -> None:
        if launches[0] != found[0]:
            problem.output.fill_(1.0)

    monkeypatch.setattr(tuning, "compile_all", lambda found, problem, limits: {})
    monkeypatch.setattr(Candidate, "launches", lambda self, problem, limits: [self])
    monkeypatch.setattr(tuning, "run", run)
    times = {each: 1.0 + place for place, each in enumerate(found)}
    monkeypatch.setattr(tuning, "_median_ms", lambda candidate, problem, limits: times[candidate])
    return problem


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_fastest_is_not_taken_where_it_is_wrong(wrong_but_fast: gemm.Product) -> None:
    problem = wrong_but_fast
    found = tuning.candidates(gemm.kernels(torch.float16), problem, HOPPER)

    def judge(output: torch.Tensor) -> str | None:
        return "not written" if output.isnan().any() else None

    assert min(tuning.measure(found, problem, HOPPER).items(), key=lambda each: each[1])[0] == found[0]
    with tuning.judged(judge), pytest.warns(UserWarning, match="is not taken: not written"):
        times = tuning.measure(found, problem, HOPPER)
    assert set(times) == set(found[1:])
    with (
        tuning.judged(lambda output: "wrong"),
        pytest.warns(UserWarning, match="is not taken: wrong"),
        pytest.raises(RuntimeError, match="no configuration runs on this GPU:\n.*: wrong"),
    ):
        tuning.measure(found, problem, HOPPER)
