"""What scripts/kernel_table makes of several processes: times, ratios with their intervals, a page."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from leanmark_kernels import instruction_set
from leanmark_kernels.ceilings import Ceilings

SCRIPTS = Path(__file__).parents[2] / "scripts"
CEILINGS = Ceilings(threads=2, flops_per_s=1e11, read_bytes_per_s=1e10)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of scripts/kernel_table by name."""
    monkeypatch.syspath_prepend(SCRIPTS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"kernel_table.{name}")

    return load


def sample(rounds: ModuleType, name: str, time_us: float, **changes: object) -> Any:
    fields: dict[str, Any] = {"ours": False, "weights": "fp32", "bytes": 0, "error": 1e-7, **changes}
    return rounds.Sample(name=name, times_us=np.full(7, time_us), **fields)


def test_a_time_is_the_median_of_the_processes_and_a_ratio_has_their_spread(part: Any) -> None:
    rounds = part("rounds")
    slower = (1.0, 1.1, 1.0, 1.2, 1.0)  # of the library, process by process
    processes = [
        [sample(rounds, "torch", 100.0 * factor), sample(rounds, "mine", 50.0, ours=True, bytes=10**6)]
        for factor in slower
    ]
    torch, mine = rounds.lines(processes, 10**6, CEILINGS)
    assert (torch.time_us, torch.processes_us) == (100.0, (100.0, 110.00000000000001, 100.0, 120.0, 100.0))
    assert torch.over_torch is None
    assert torch.over_ours == rounds.Ratio("mine", *astuple(mine.over_torch)[1:])
    assert mine.flops_share == pytest.approx(10**6 / 50e-6 / 1e11)
    assert mine.read_share == pytest.approx(10**6 / 50e-6 / 1e10)
    centre = float(np.mean(np.log(slower)))
    half = 2.7764451 * float(np.std(np.log(slower), ddof=1)) / math.sqrt(5)
    assert mine.over_torch.value == pytest.approx(2 * math.exp(centre))
    assert mine.over_torch.low == pytest.approx(2 * math.exp(centre - half))
    assert mine.over_torch.high == pytest.approx(2 * math.exp(centre + half))


def test_the_best_library_has_weights_as_precise(part: Any) -> None:
    rounds = part("rounds")
    one = [
        sample(rounds, "torch", 100.0),
        sample(rounds, "bytes", 20.0, weights="w8"),
        sample(rounds, "nibbles", 10.0, weights="w4a8"),
        sample(rounds, "mine", 40.0, ours=True, error=1e-3),
        sample(rounds, "mine w8", 10.0, ours=True, weights="int8-exact"),
    ]
    other = [*one[:3], sample(rounds, "mine", 40.0, ours=True, error=2e-3), one[4]]
    *_, mine, mine_w8 = rounds.lines([one, other], 1, CEILINGS)
    assert (mine.over_best.against, mine.over_best.value) == ("torch", pytest.approx(2.5))
    assert (mine_w8.over_best.against, mine_w8.over_best.value) == ("bytes", pytest.approx(2.0))
    torch = rounds.lines([one, other], 1, CEILINGS)[0]
    assert (torch.over_ours.against, torch.over_ours.value) == ("mine", pytest.approx(2.5))
    assert mine.error == 2e-3  # the largest of the processes


def test_after_one_round_a_ratio_has_no_interval(part: Any) -> None:
    rounds = part("rounds")
    found = rounds.ratio("torch", [np.array([3.0])], [np.array([1.0])])
    assert (found.low, found.high, str(found)) == (None, None, "3.00")


def test_every_process_has_an_order_of_its_own(part: Any) -> None:
    rounds, contenders = part("rounds"), part("contenders")
    import torch

    class Tiny:
        title, flops = "tiny", 1

        def contenders(self, with_compiled: bool) -> Any:
            return [
                contenders.Contender(name, lambda name=name: ran.append(name), lambda: torch.ones(1))
                for name in "abcdef"
            ]

        def exact(self) -> torch.Tensor:
            return torch.ones(1)

    slices = partial(part("slices").Slices, cores=[0], most_adds_per_s=1e15, patience_s=0.0)
    orders = []
    for process in range(2):
        ran: list[str] = []
        samples = rounds.sampled(Tiny(), slices(), 2, process, False)
        assert [one.name for one in samples] == list("abcdef")
        orders.append(list(dict.fromkeys(ran)))
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_a_slice_is_timed_again_until_the_processors_are_there(
    part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = part("slices")
    monkeypatch.setattr(slices.torch, "get_num_threads", lambda: 2)
    now = 0.0
    found: Iterator[float]
    whole: Iterator[bool]

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def probe(timed: Any) -> bool:
        timed._undisturbed = next(whole)
        return bool(timed._undisturbed)

    monkeypatch.setattr(slices, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
    monkeypatch.setattr(slices.Slices, "_timed_us", lambda *_: next(found))
    monkeypatch.setattr(slices.Slices, "_whole", probe)

    found, whole = iter([7.0, 8.0, 9.0]), iter([True, False, False, True, True, True])
    timed = slices.Slices(cores=[4, 5], most_adds_per_s=1.0, patience_s=1.0)
    assert timed.time_us(lambda: None, 1) == 8.0
    assert timed.time_us(lambda: None, 1) == 9.0  # the probe behind one slice is that before the next
    assert (timed.count, timed.disturbed) == (2, 0) and next(whole, None) is None
    assert timed.patience_s == pytest.approx(1.0 - 2 * slices.RETRY_S)

    found, whole = iter([7.0]), iter([False] * 2)
    hurried = slices.Slices(cores=[4, 5], most_adds_per_s=1.0, patience_s=1.5 * slices.RETRY_S)
    assert hurried.time_us(lambda: None, 1) == 7.0
    assert (hurried.count, hurried.disturbed) == (1, 1)


def test_a_slice_moves_to_cores_that_nobody_shares(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = part("slices")
    monkeypatch.setattr(slices.torch, "get_num_threads", lambda: 1)
    shared = {4, 5}

    def whole(timed: Any) -> bool:
        timed._undisturbed = timed.cores[0] not in shared
        return bool(timed._undisturbed)

    def timed_us(timed: Any, call: object, repeats: int) -> float:
        where: int = timed.cores[0]
        if where == 6:
            shared.symmetric_difference_update({4, 6})
        return float(where)

    monkeypatch.setattr(slices.Slices, "_whole", whole)
    monkeypatch.setattr(slices.Slices, "_timed_us", timed_us)
    timed = slices.Slices(cores=[4, 5, 6], most_adds_per_s=1.0, patience_s=9.0)
    assert timed.time_us(lambda: None, 1) == 4.0  # while it ran on 6, the neighbour of 4 went there
    assert sorted(timed.cores) == [4, 5, 6] and timed.disturbed == 0


def test_the_threads_that_work_have_a_core_each(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller may be one of them, or only wait for its pool."""
    slices = part("slices")
    spent: dict[int, int] = {10: 0, 11: 0, 12: 0}
    pinned: dict[int, set[int]] = {}
    monkeypatch.setattr(slices, "_spent_ns", lambda: dict(spent))
    monkeypatch.setattr(os, "sched_setaffinity", pinned.__setitem__)

    def working(*threads: int) -> Callable[[], None]:
        def call() -> None:
            for one in threads:
                spent[one] = spent.get(one, 0) + 1000

        return call

    assert slices.workers(working(12, 10), 2, (4, 5)) == [10, 12]
    assert pinned == {10: {4, 5}, 11: {4, 5}, 12: {4, 5}}  # free while one looks
    assert slices.workers(working(11, 13), 2, (4, 5)) == [11, 13]
    slices.place([11, 13], (4, 5))
    assert pinned == {10: {4, 5}, 11: {4}, 12: {4, 5}, 13: {5}}
    assert slices.workers(working(10), 1, (4, 5)) == [10]
    with slices.on_all_cores():
        assert pinned[0] == slices.ALL_CORES


@pytest.mark.parametrize(
    ("processes", "count", "says"),
    [
        (5, "5 processes one after another, in each", "t interval over the processes'"),
        (2, "2 processes one after another, in each", "of these processes alone"),
        (1, "One process, in each", "of these processes alone"),
    ],
)
def test_the_page_says_what_its_intervals_are_of(
    part: Any, processes: int, count: str, says: str, tmp_path: Path
) -> None:
    rounds, report = part("rounds"), part("report")
    samples = [sample(rounds, "torch", 100.0), sample(rounds, "mine", 50.0, ours=True)]
    lines = rounds.lines([samples] * processes, 10**6, CEILINGS)
    outcome = part("targets").Outcome(
        "mine", 1.9, lines[1].over_torch, "missed", error=2e-4, limit=1e-4, most=1.8
    )
    table = report.Table(
        processes=processes,
        rounds=7,
        ceilings=CEILINGS,
        slices=700,
        disturbed=3,
        cases={"conv": lines},
        asked={"conv": [outcome]},
    )
    evidence = {"torch": part("instruction_sets").Evidence("AVX2", "asked")}
    path = report.write([table], evidence, tmp_path, ["kernel_bench.py"], "avx2")
    assert path.name.endswith("Z-avx2.md")
    page = path.read_text()
    assert page.startswith("# Kernels, with every library held to avx2\n")
    assert "| torch | AVX2 | asked |" in page
    assert count in page.replace("\n", " ")
    assert says in page.replace("\n", " ")
    assert "## 2 threads\n" in page
    assert "3 of 700 waited in vain" in page
    assert "| conv | fp32 | mine | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] torch |" in page
    asked = "1.9, error 1e-04 | 1.80 | 2.00 [2.00, 2.00] torch, error 2.0e-04 | missed, out of reach"
    assert f"| conv | mine | {asked} |" in page
    shown = "\n".join(report.text(table))
    assert "mine" in shown
    assert "3 of 700 waited" in shown


def test_what_is_asked_is_held_against_the_fastest_rival(part: Any) -> None:
    rounds, targets = part("rounds"), part("targets")
    slower = (1.0, 1.1, 1.0, 1.2, 1.0)

    def outcomes(title: str, threads: int, ours: float) -> list[Any]:
        processes = [
            [
                sample(rounds, "torch", 300.0 * factor),
                sample(rounds, "OpenVINO", 200.0 * factor),
                sample(rounds, "winograd F(4x4)", ours, ours=True),
                sample(rounds, "winograd F(2x2)", 500.0, ours=True),
                sample(rounds, "int8 conv", 500.0, ours=True),
                sample(rounds, "int8 winograd", 500.0, ours=True),
            ]
            for factor in slower
        ]
        return list(targets.outcomes(title, processes, 10**6, replace(CEILINGS, threads=threads)))

    # no exact int8 is among the rivals, so nothing is said of it
    best, torch = outcomes("conv 3x3 64@56 batch 1", 1, 105.0)
    assert (best.ours, best.asked, best.verdict) == ("winograd F(4x4)", 1.9, "near")
    assert best.ratio.against == "OpenVINO"
    assert (torch.asked, torch.ratio.against, torch.verdict) == (2.2, "torch", "met")
    assert [one.verdict for one in outcomes("conv 3x3 64@56 batch 1", 1, 190.0)] == ["missed", "missed"]
    for threads, asked in ((1, 1.5), (2, 1.3)):
        assert [one.asked for one in outcomes("conv 3x3 512@7 batch 1", threads, 50.0)] == [asked]
    assert outcomes("conv 1x1 256->1024@14 batch 1", 1, 50.0) == []


@pytest.mark.parametrize(("error", "verdict"), [(9e-5, "met"), (1.1e-4, "missed"), (math.nan, "missed")])
def test_what_is_asked_of_a_model_holds_within_its_error_alone(part: Any, error: float, verdict: str) -> None:
    rounds, targets = part("rounds"), part("targets")
    samples = [
        sample(rounds, "torch", 900.0),
        sample(rounds, "torch.compile", 300.0),
        sample(rounds, "OpenVINO", 200.0),
        sample(rounds, "converted", 100.0, ours=True, error=error),
    ]
    [found] = targets.outcomes("ResNet-18 at 224 batch 1", [samples] * 5, 10**6, CEILINGS)
    assert (found.asked, found.limit, found.ratio.against) == (1.7, 1e-4, "OpenVINO")
    assert (found.verdict, found.most) == (verdict, None)


def test_the_most_is_of_a_kernel_at_the_ceiling(part: Any) -> None:
    rounds, targets = part("rounds"), part("targets")
    samples = [sample(rounds, "OpenVINO", 14.0), sample(rounds, "inverted residual", 20.0, ours=True)]
    # 10^6 operations take 10 us at 10^11 a second
    [found] = targets.outcomes("inverted residual 24->144@56 stride 1", [samples] * 5, 10**6, CEILINGS)
    assert found.most == pytest.approx(1.4)


def test_weight_only_kernels_of_libraries_leave_activations_as_they_are(part: Any) -> None:
    import torch

    graphs, runtimes, rounds = part("graphs"), part("runtimes"), part("rounds")
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(256, 64), torch.randn(4, 256)
    graph = graphs.nbits(linear, 8, 128, weight_only=True)
    values = {name: torch.from_numpy(array).double() for name, array in graph.values.items()}
    weight = ((values["w"] - 128) * values["s"].view(64, 2, 1)).flatten(1)
    exact = torch.nn.functional.linear(x.double(), weight, values["b"])
    found = list(runtimes.every(graph, x, (4, 64), " w8"))
    assert found[0].name == "ONNX Runtime w8"
    for one in found:
        assert rounds.relative_error(one.output(), exact) < 1e-5, one.name
    rounded = runtimes.onnxruntime(graphs.nbits(linear, 8, 128), x, (4, 64))
    assert rounds.relative_error(rounded.output(), exact) > 1e-3


def test_layers_with_zeros_are_measured_in_fp32_alone(part: Any) -> None:
    import torch

    layers = part("layers")
    [case] = [case for case in layers.cases() if case.title == "linear 1x1024x4096, 80% zeros"]
    with torch.no_grad():
        found = {one.name: one.weights for one in case.contenders(with_compiled=False)}
    assert set(found.values()) == {"fp32", "sparse"}
    assert {"torch", "oneDNN prepacked", "packed fp32", "sparse 1x1", "sparse 4x1", "ONNX Runtime"} <= set(
        found
    )


def test_every_library_computes_what_a_model_does(part: Any) -> None:
    from leanmark.workloads.resnet import ResNet18

    model = ResNet18(image=32, width=8).model().eval()
    case = part("models").ModelCase("tiny", model, (1, 3, 32, 32), 1)
    import torch

    with torch.no_grad():
        found, exact = case.contenders(with_compiled=False), case.exact()
        errors = {one.name: part("rounds").relative_error(one.output(), exact) for one in found}
    assert {"torch", "torch channels_last", "converted", "ONNX Runtime"} <= set(errors)
    assert max(errors.values()) < 1e-4
    assert [one.name for one in found if one.ours] == ["converted"]


def test_without_an_interval_nothing_is_met_or_missed(part: Any) -> None:
    rounds, targets = part("rounds"), part("targets")
    one = [
        rounds.Sample(name=name, ours=ours, weights="fp32", bytes=0, error=0.0, times_us=np.array([time_us]))
        for name, ours, time_us in (("torch", False, 300.0), ("depthwise", True, 30.0))
    ]
    [found] = targets.outcomes("depthwise 3x3 384@14 stride 1 batch 1", [one], 10**6, CEILINGS)
    assert (found.ratio.value, found.ratio.low, found.verdict) == (pytest.approx(10.0), None, "near")


@pytest.mark.parametrize("option", ["--processes", "--rounds", "--threads"])
def test_a_count_of_none_is_refused_before_anything_is_measured(option: str) -> None:
    command = [sys.executable, str(SCRIPTS / "kernel_bench.py"), "--dry", option, "0", "linear"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert f"argument {option}: must be at least 1, not 0" in ended.stderr


def test_a_missing_tool_is_said_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "kernel_bench.py"), "--dry", "--isa", "avx2", "linear"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": str(tmp_path)})
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "kernel_bench.py: holding libraries to AVX2 needs cc, objdump, readelf: install gcc and binutils"
    )
    assert "Traceback" not in ended.stderr


def test_every_target_is_of_a_layer_of_the_table(part: Any) -> None:
    import re

    titles = [case.title for case in part("cases").every()]
    for target in part("targets").TARGETS:
        assert any(re.fullmatch(target.title, title) for title in titles), target


@pytest.mark.slow
def test_real_processes_measure_a_real_layer_with_all_that_the_targets_name(part: Any) -> None:
    processes = part("processes")
    request = processes.Request(titles=("linear 1x1024x1024",), threads=1, rounds=1, with_compiled=False)
    found = list(processes.run(request, 2))
    assert len(found) == 2
    names = {one.name for one in found[0].samples["linear 1x1024x1024"]}
    targets = part("targets").TARGETS
    of_linear = [one for one in targets if one.title.startswith("linear")]
    elsewhere = {"int7 exact"} if instruction_set() == "avx512_vnni" else set()
    for target in of_linear:
        assert set(target.ours) - elsewhere <= names, target
        assert {name for name in target.rivals if not name.startswith("OpenVINO")} <= names, target
