"""pytest with leanmark installed, as a user runs it: in folders of their own, in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from leanmark import store

CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--benchmark", {how}, help="this repository's own")
"""
STOPPED = """
from leanmark.errors import UnwritableResults
from leanmark.measuring import campaign

class Stopped:
    measurements = ()
    def __init__(self, plan, *others): pass
    def __exit__(self, *error): pass
    def measure(self, case): {does}

campaign.Campaign = Stopped
"""
TEST = "def test_one(pytestconfig): assert pytestconfig.getoption('--benchmark') == {value!r}\n"


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def collected(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stdout + result.stderr
    return [line for line in result.stdout.splitlines() if line.startswith("leanmark::")]


@pytest.mark.parametrize("flag", ["--benchmark", "--leanmark"])
def test_either_flag_collects_the_suite_in_any_folder(tmp_path: Path, flag: str) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(): raise AssertionError\n")
    names = collected(run(tmp_path, flag, "--collect-only", "-q"))
    assert "leanmark::cnn/inference/b1/fp32/eager/cpu/t1" in names
    assert "leanmark::lstm/inference/b32/int8/onnxruntime/cpu/t1" in names
    assert "leanmark::mlp/training/b32/prune/eager/cpu/t1" in names
    assert len(names) == 92


def test_without_the_flag_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(): pass\n")
    result = run(tmp_path)
    assert result.returncode == 0
    assert "1 passed" in result.stdout
    told = "leanmark: nothing is measured without --leanmark"
    assert told not in result.stdout
    assert told in run(tmp_path, "--leanmark-budget=5m").stdout


def test_the_flag_works_from_the_environment_and_from_an_ini_file(tmp_path: Path) -> None:
    select = "--leanmark-workload=mlp --leanmark-phase=training"
    assert len(collected(run(tmp_path, "--collect-only", "-q", PYTEST_ADDOPTS=f"--benchmark {select}"))) == 5
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = --benchmark {select}\n")
    assert len(collected(run(tmp_path, "--collect-only", "-q"))) == 5


def test_a_technique_that_is_in_no_case_is_told(tmp_path: Path) -> None:
    asked = "--benchmark --leanmark-technique int8 --leanmark-technique prune --leanmark-phase training"
    result = run(tmp_path, *asked.split(), "--collect-only")
    assert "leanmark: int8 is left out: int8 has no training on eager: " in result.stdout


def test_paths_that_are_given_are_respected(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(): pass\n")
    result = run(tmp_path, "--benchmark", "test_mine.py")
    assert result.returncode == 0
    assert "1 passed" in result.stdout
    assert "leanmark::" not in result.stdout


@pytest.mark.parametrize(
    ("how", "given", "value"),
    [
        ("action='store_true'", "--benchmark", True),
        ("action='store_true', dest='benchmark'", "--benchmark", True),
        ("nargs='*', default=None", "--benchmark=x", ["x"]),
        ("action='store'", "--benchmark=x", "x"),
    ],
)
def test_a_repository_with_a_flag_of_that_name_keeps_it(
    tmp_path: Path, how: str, given: str, value: object
) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(how=how))
    (tmp_path / "test_mine.py").write_text(TEST.format(value=value))
    result = run(tmp_path, given)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
    assert len(collected(run(tmp_path, "--leanmark", "--collect-only", "-q"))) == 92


def test_it_lives_beside_pytest_benchmark(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(benchmark): benchmark(lambda: None)\n")
    result = run(tmp_path, "--benchmark-only", "--benchmark-min-rounds=2", "--benchmark-max-time=0.01")
    assert result.returncode == 0, result.stdout
    assert "test_mine" in result.stdout
    options = "--benchmark --benchmark-disable --leanmark-workload=mlp -k training --collect-only -q"
    assert len(collected(run(tmp_path, *options.split()))) == 4


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
@pytest.mark.parametrize("how", ["-n 2", "-d --tx 2*popen", "--dist loadfile --tx 2*popen"])
def test_xdist_is_refused(tmp_path: Path, how: str) -> None:
    result = run(tmp_path, "--benchmark", *how.split())
    assert result.returncode == 4
    assert "leanmark measures one thing at a time" in result.stderr


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
@pytest.mark.parametrize("how", ["-n 0", "--dist loadfile", "-n 0 --dist loadfile --tx 2*popen"])
def test_xdist_that_starts_no_workers_is_none(tmp_path: Path, how: str) -> None:
    select = "--leanmark-workload=mlp --leanmark-phase=training --collect-only -q"
    assert len(collected(run(tmp_path, "--benchmark", *how.split(), *select.split()))) == 5


@pytest.mark.skipif(find_spec("xdist") is None, reason="needs pytest-xdist")
def test_the_fixture_is_refused_in_a_worker_of_xdist(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(leanmark): leanmark.measure(lambda: None)\ndef test_another(): pass\n"
    )
    result = run(tmp_path, "-n", "1")
    assert result.returncode == 1
    assert "1 failed, 1 passed" in result.stdout
    assert "run these tests without pytest-xdist (-n 0)" in result.stdout


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--leanmark-workload=cnm", "Unknown workload 'cnm'. Did you mean cnn?"),
        ("--leanmark-technique=prone", "Unknown technique 'prone'. Did you mean prune"),
        ("--leanmark-phase=train", "Unknown phase 'train'. Did you mean training?"),
        ("--leanmark-batch=zero", "a batch size is a whole number of at least 1, not 'zero'"),
        ("--leanmark-target=97", "a target is a quality above 0 and at most 1, such as 0.97 or 97%"),
        ("--leanmark-zone=FRB", "Unknown zone 'FRB'. Did you mean"),
        ("--leanmark-zone=FRA --leanmark-intensity=50", "give one of them, not both"),
        ("--leanmark-pue=0.9", "a PUE is facility energy over IT energy, between 1 and 5, not 0.9"),
        ("--leanmark-request-rate=0", "a number of requests per second above 0, not 0"),
    ],
)
def test_bad_input_is_named_before_anything_is_measured(tmp_path: Path, option: str, message: str) -> None:
    result = run(tmp_path, "--benchmark", *option.split())
    assert result.returncode == 4
    assert message in result.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("threads", "message"),
    [("0", "threads are a whole number of at least 1, not 0"), ("4096", "4096 threads need 4096 cores")],
)
def test_a_run_that_cannot_begin_says_so_once(tmp_path: Path, threads: str, message: str) -> None:
    result = run(tmp_path, "--benchmark", "--leanmark-workload=noop", f"--leanmark-threads={threads}")
    assert result.returncode == 4
    assert (result.stdout + result.stderr).count(message) == 1
    assert "FAILED" not in result.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("does", "told", "count"),
    [
        ("raise UnwritableResults('the disk is full')", "!! the disk is full !!", "1 failed in"),
        ("return ()", "was not measured: an earlier case ended the contest", "3 failed in"),
    ],
)
def test_no_case_passes_without_a_measurement(tmp_path: Path, does: str, told: str, count: str) -> None:
    (tmp_path / "conftest.py").write_text(STOPPED.format(does=does))
    selected = "--leanmark-workload=noop --leanmark-technique=fp32 --leanmark-batch=1"
    result = run(tmp_path, "--benchmark", *selected.split(), "--leanmark-phase=inference")
    assert result.returncode == 1, result.stdout + result.stderr
    assert told in result.stdout
    assert count in result.stdout


def test_cases_are_items_and_the_table_ends_the_run(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        *("--benchmark", "--leanmark-workload=mlp", "--leanmark-technique=distill"),
        *("--leanmark-technique=int8", "-k", "b32 and inference and onnxruntime", "--leanmark-target=80%"),
        *("--leanmark-intensity=123", "--leanmark-pue=1.5", "--leanmark-embodied=300"),
        *("--leanmark-lifetime=4", "--leanmark-request-rate=20"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout
    _, title, trained = result.stdout.partition("mlp · training to accuracy 80.0 % · cpu")
    assert title
    assert "seeds there" in trained
    assert "\n distill " in trained
    assert "mlp · inference · batch 32" in result.stdout
    assert "CO2e is energy times 123 gCO2e/kWh (as given" in result.stdout
    assert "PUE 1.5, 300 kg over 4 years of use for making the device" in result.stdout
    [records] = (tmp_path / "results").glob("*/*.jsonl")
    found = store.load(records).run
    assert found.intensity is not None and found.site is not None
    assert (found.intensity.value_g_per_kwh, found.site.pue, found.plan.request_rate) == (123.0, 1.5, 20.0)
    assert records.with_suffix(".md").exists()
    assert "<html" in records.with_suffix(".html").read_text()
