"""Whole runs with real processes, on a model small enough to wait for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import store
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import Provenance
from leanmark.store import Records

from .tiny_runs import HERE, SAMPLING, TINY, beside_tiny, only, planned, ran

BROKEN = WorkloadSpec(name="tiny:broken_model", data="tiny:loaders")


@pytest.fixture(autouse=True)
def beside() -> Iterator[None]:
    with beside_tiny():
        yield


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    with beside_tiny():
        return ran(planned("fp32", "int8"), tmp_path_factory.mktemp("results"))


def test_every_case_is_measured_in_every_pass(records: Records) -> None:
    assert [one.reason for one in records.measurements if one.status != "ok"] == []
    cases = {one.case for one in records.measurements if one.pass_name == "latency"}
    assert {(case.label, case.backend) for case in cases} == {
        ("fp32", "eager"),
        ("fp32-again", "eager"),
        ("fp32", "onnxruntime"),
        ("int8", "onnxruntime"),
    }
    for case in cases - {replace(case, sentinel=True) for case in cases if case.is_baseline}:
        passes = {one.pass_name for one in records.measurements if one.case == case}
        assert {"latency", "memory", "energy"} <= passes


def test_rounds_are_complete_and_interleaved(records: Records) -> None:
    latencies = [one for one in records.measurements if one.pass_name == "latency"]
    seen = {(block.process, block.round, block.order) for one in latencies for block in one.series[0].blocks}
    assert len(seen) == SAMPLING.processes * SAMPLING.rounds * len(latencies)
    assert len({one.contest for one in latencies}) == 1
    assert len({one.work for one in latencies}) == 1


def test_all_variants_of_a_replica_share_their_cores(records: Records) -> None:
    processes = [one.executed["processes"] for one in records.measurements if one.pass_name == "latency"]
    assert processes[0] == processes[1] == processes[2] == processes[3]
    assert [place["wait"] for place in processes[0]] == ["passive", "passive"]


def test_latency_is_plausible_and_cpu_time_no_longer_than_wall_time(records: Records) -> None:
    one = only(records, "latency", technique="fp32", backend="eager")
    latency, cpu = one.find("latency_s"), one.find("cpu_time_s")
    assert latency is not None
    assert cpu is not None
    assert 1e-7 < min(latency.values) < 0.1
    assert sum(cpu.values) < 1.2 * sum(latency.values)


def test_the_quality_is_that_of_the_model_that_was_timed(records: Records) -> None:
    baseline = only(records, "latency", technique="fp32", backend="eager").quality
    int8 = only(records, "latency", technique="int8").quality
    assert baseline is not None
    assert int8 is not None
    assert (baseline.value, baseline.count, baseline.lost) == (1.0, 200, 0)
    assert int8.correct == 200 - (int8.lost or 0)
    assert int8.relative_error is not None
    assert 0 < int8.relative_error < 0.1


def test_the_speed_of_the_core_is_known_of_every_block(records: Records) -> None:
    latency = only(records, "latency", technique="fp32", backend="eager").find("latency_s")
    assert latency is not None
    speeds = [block.hash_bytes_per_s for block in latency.blocks]
    assert all(speed is not None and 1e7 < speed < 1e11 for speed in speeds)


def test_what_executed_is_recorded(records: Records) -> None:
    eager = only(records, "latency", technique="fp32", backend="eager").executed
    int8 = only(records, "latency", technique="int8").executed
    assert eager["operators"] == {"addmm[float32]": 2}
    assert eager["threads"] == 1
    assert any("Integer" in name or name.startswith("Q") for name in int8["operators"])


def test_memory_is_split_into_the_import_and_the_work(records: Records) -> None:
    one = only(records, "memory", technique="fp32", backend="onnxruntime")
    peak, imported, working = (one.find(f"{name}_memory_bytes") for name in ("peak", "import", "working"))
    assert peak is not None
    assert imported is not None
    assert working is not None
    assert peak.values[0] == imported.values[0] + working.values[0]
    eager = only(records, "memory", technique="fp32", backend="eager").find("import_memory_bytes")
    assert eager is not None
    # the ONNX Runtime process must not have imported torch
    assert imported.values[0] < 0.6 * eager.values[0]


def test_imports_are_those_of_a_script_without_leanmark(records: Records) -> None:
    one = only(records, "memory", technique="fp32", backend="onnxruntime")
    imported, own = (one.find(f"{name}_memory_bytes") for name in ("import", "leanmark"))
    assert imported is not None
    assert own is not None
    script = (
        "import onnxruntime, zipfile, gc, pathlib; gc.collect()\n"
        "lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith('VmRSS:')))"
    )
    bare = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert imported.values[0] == pytest.approx(int(bare.stdout), rel=0.03)
    assert 1e6 < own.values[0] < 30e6


def test_energy_without_a_counter_is_an_estimate(records: Records) -> None:
    one = only(records, "energy", technique="int8").find("energy_j")
    assert one is not None
    assert one.provenance is Provenance.ESTIMATED_MODEL
    assert one.values[0] > 0


def test_facts_of_the_model_are_exact(records: Records) -> None:
    model = only(records, "prepare", technique="fp32", backend="eager").model
    assert model is not None
    assert model.parameters == 16 * 32 + 32 + 32 * 4 + 4
    assert model.macs == 16 * 32 + 32 * 4
    int8 = only(records, "prepare", technique="int8").model
    assert int8 is not None
    assert (int8.parameters, int8.macs) == (model.parameters, model.macs)


def test_a_model_that_cannot_be_made_fails_with_its_traceback_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    records = ran(planned("fp32", workloads=(BROKEN, TINY), backends=("eager",)), tmp_path)
    failed = only(records, "latency", workload="tiny:broken_model")
    assert failed.status == "failed"
    assert "the weights are nowhere to be found" in str(failed.reason)
    assert "in broken_model" in str(failed.traceback)
    assert only(records, "latency", workload="tiny:model").status == "ok"


def test_nothing_else_is_tried_of_a_model_that_cannot_be_made(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "leanmark", "run", "--model", BROKEN.name, "--data", str(BROKEN.data),
        "--results", str(tmp_path),
    ]  # fmt: skip
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert result.returncode == 1
    why = "OSError: the weights are nowhere to be found"
    assert f"leanmark: nothing of {BROKEN.name} could be measured: {why}" in result.stderr
    assert "in broken_model" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if line] == ["records", "summary", "page"]
    measurements = store.load(store.find(tmp_path)[0]).measurements
    assert [one.case.technique for one in measurements if one.pass_name == "prepare"] == ["fp32"]
    skipped = {one.reason for one in measurements if one.case.technique != "fp32"}
    assert skipped == {f"unsupported: fp32 could not be prepared: {why}"}


@pytest.mark.slow
def test_processes_are_added_until_the_budget_ends_and_never_for_a_difference(tmp_path: Path) -> None:
    made = planned("fp32", backends=("eager",))
    enough = replace(SAMPLING, processes=2, max_processes=4, precision=1e-9, budget_s=600.0)
    records = ran(replace(made, sampling=enough), tmp_path / "enough")
    latency = only(records, "latency", technique="fp32").find("latency_s")
    assert latency is not None
    assert latency.processes == 4  # as many as allowed: 1e-9 is out of reach


def test_what_the_budget_does_not_reach_is_skipped_and_says_so(tmp_path: Path) -> None:
    made = planned("fp32", backends=("eager",), batches=(4, 8))
    records = ran(replace(made, sampling=replace(SAMPLING, budget_s=0.5)), tmp_path)
    by_batch = {
        one.case.batch: (one.status, one.reason)
        for one in records.measurements
        if one.pass_name == "latency" and not one.case.sentinel
    }
    assert by_batch[4] == ("ok", None)
    assert by_batch[8] == ("skipped", "the time budget ended before its turn came")


def test_a_precise_contest_ends_after_its_first_look_and_training_is_measured_too(tmp_path: Path) -> None:
    made = planned("fp32", backends=("eager",), phases=("inference", "training"))
    content = replace(SAMPLING, processes=2, max_processes=9, precision=10.0)
    records = ran(replace(made, sampling=content), tmp_path)
    for phase in ("inference", "training"):
        latency = only(records, "latency", technique="fp32", phase=phase).find("latency_s")
        assert latency is not None
        assert latency.processes == 2
    one = only(records, "latency", technique="fp32", phase="training")
    assert one.status == "ok", one.reason
    assert one.executed["operators"] == {"addmm[float32]": 2, "mm[float32]": 3}


def _started(results: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "leanmark", "run", "--model", TINY.name, "--data", str(TINY.data),
            "--results", str(results), *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
        # a shell that starts the tests in the background has it ignored by all that they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def _lines(results: Path) -> list[str]:
    return [line for path in store.find(results) for line in path.read_text().splitlines()]


def _wait_for_measurements(results: Path, count: int, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while sum('"pass_name":"latency"' in line for line in _lines(results)) < count:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child} | _descendants(child)
    return found


def _gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_parent_killed_in_mid_run_loses_no_finished_measurement(tmp_path: Path) -> None:
    running = _started(tmp_path, "-t", "int8", "--batch", "1", "--batch", "2", "--batch", "4")
    _wait_for_measurements(tmp_path, 3, running)
    before, pids = _lines(tmp_path), _descendants(running.pid)
    assert pids
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    [path] = store.find(tmp_path)
    after = store.load(path)
    assert len(after.measurements) >= len(before) - 1
    assert [json.loads(line) for line in before[:-1]] == [
        json.loads(line) for line in _lines(tmp_path)[: len(before) - 1]
    ]
    assert _gone(pids), "processes outlived their parent"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_and_prints_what_is_finished_and_leaves_nothing(
    how: signal.Signals,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    running = _started(tmp_path, "-t", "int8", "--batch", "1", "--batch", "2", "--batch", "4")
    _wait_for_measurements(tmp_path, 3, running)
    pids = _descendants(running.pid)
    running.send_signal(how)
    out, err = running.communicate(timeout=60)
    assert not list(scratch.glob("leanmark-*"))
    assert running.returncode == 130, err
    assert "batch 1" in out
    assert "interrupted: the finished measurements above are kept" in err
    assert "Traceback" not in err
    assert _gone(pids)


@pytest.mark.slow
def test_a_gate_fails_only_on_what_a_second_pass_confirms(tmp_path: Path) -> None:
    slow = "tiny:Misbehaving(at=0,what=sleep)"
    command = [
        sys.executable, "-m", "leanmark", "run", "--model", TINY.name, "--data", str(TINY.data),
        "-t", slow, "-b", "eager", "--phase", "inference", "--batch", "4", "--results", str(tmp_path),
        "--fail-on", "worse:latency=5%",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    assert result.returncode == 3, result.stdout + result.stderr
    assert f"{slow}/eager" in result.stdout.splitlines()[-2]
    first, second = (store.load(path) for path in reversed(store.find(tmp_path)))
    assert (first.run.plan.seed, second.run.plan.seed) == (0, 1)
    assert {one.case.technique for one in second.measurements} == {"fp32", slow}
