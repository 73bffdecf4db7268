"""What ``convert`` chooses by: its timings, the file that keeps them, and what is read beside a layer."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from leanmark_kernels.convert import Recipe, choosing, convert, timing

from .convert_models import UNCACHED, Inverted, Residual, images, trained


def test_each_choice_has_the_timings_it_rests_on() -> None:
    (choice,) = convert(trained(nn.Sequential(nn.Linear(32, 16))), torch.randn(2, 32), UNCACHED).choices
    assert {one.candidate for one in choice.timings} == {"torch", "oneDNN prepacked", "packed fp32"}
    times = [one.time_s for one in choice.timings]
    assert times == sorted(times) and times[0] > 0
    assert not choice.cached and choice.weights_count == 32 * 16
    own = {one.candidate: one.own for one in choice.timings}
    assert own == {"torch": False, "oneDNN prepacked": False, "packed fp32": True}


def test_timings_are_kept_for_the_same_work_on_the_same_machine(tmp_path: Path) -> None:
    model, recipe = trained(Residual()), Recipe(rounds=1, cache=tmp_path / "new")
    first = convert(model, images(), recipe)
    again = convert(model, images(), recipe)
    assert not any(choice.cached for choice in first.choices)
    assert all(choice.cached for choice in again.choices)
    assert [one.chosen for one in again.choices] == [one.chosen for one in first.choices]
    other = convert(model, images(batch=3), recipe)
    assert not any(choice.cached for choice in other.choices)
    (file,) = (tmp_path / "new").iterdir()
    content = json.loads(file.read_text())
    assert content["machine"]["torch"] == torch.__version__
    assert len(content["seconds"]) == 8


def test_a_broken_or_foreign_cache_is_measured_again(tmp_path: Path) -> None:
    model, recipe = trained(nn.Sequential(nn.Linear(8, 8))), Recipe(rounds=1, cache=tmp_path)
    convert(model, torch.randn(1, 8), recipe)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "machine": {"processor": "another"}}))
    assert not convert(model, torch.randn(1, 8), recipe).choices[0].cached
    file.write_text("{")
    with pytest.warns(UserWarning, match="is not read, its timings are measured again"):
        assert not convert(model, torch.randn(1, 8), recipe).choices[0].cached
    assert convert(model, torch.randn(1, 8), recipe).choices[0].cached


def test_timings_of_three_one_by_one_hold_only_for_what_the_three_became(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name in ("torch", "one by one") else 2e-6 for name in calls}

    monkeypatch.setattr(choosing, "interleaved", timed)
    model, recipe = trained(nn.Sequential(Inverted(4))), Recipe(rounds=1, cache=tmp_path)
    assert not convert(model, images(), recipe).choices[-1].cached
    assert convert(model, images(), recipe).choices[-1].cached
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    (triple,) = (what for what in content["seconds"] if ";" in what)
    assert triple.count(" by torch") == 3
    for what, times in content["seconds"].items():
        if what != triple:
            times["oneDNN prepacked"] = 5e-7
    file.write_text(json.dumps(content))
    again = convert(model, images(), recipe).choices
    assert [choice.chosen for choice in again] == ["oneDNN prepacked"] * 3 + ["one by one"]
    assert [choice.cached for choice in again] == [True, True, True, False]


def test_layers_are_timed_beside_the_rest_of_their_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read between two calls: 32 KiB of the other weights, and 8 KiB, each with a few biases."""
    seen = []

    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        seen.append(beside)
        return dict.fromkeys(calls, 1e-6)

    monkeypatch.setattr(choosing, "interleaved", timed)
    convert(trained(nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 128))), torch.randn(1, 32), UNCACHED)
    assert seen == [32 << 10, 8 << 10]
    convert(trained(nn.Sequential(nn.Linear(8, 8, bias=False))), torch.randn(1, 8), UNCACHED)
    assert seen[2:] == [0]
    convert(trained(nn.Sequential(Inverted(4), nn.Conv2d(4, 64, 3))), images(), UNCACHED)
    assert seen[-1] == 8 << 10  # of three together


def test_timing_reads_what_is_beside_a_call_but_no_more_than_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ones = list[int](), torch.ones

    def asked_for(count: int) -> Tensor:
        asked.append(count)
        return ones(1)

    monkeypatch.setattr(torch, "ones", asked_for)
    calls = {"first": lambda: None, "second": lambda: None}
    assert list(timing.interleaved(calls, 1, beside=4096)) == ["first", "second"]
    timing.interleaved(calls, 1, beside=1 << 40)
    assert asked == [1024, timing.MOST_BESIDE // 4]
