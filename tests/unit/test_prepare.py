"""Making the baseline and applying techniques: what lies on disk, what is answered, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import nn

from leanmark import chain
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.models.artifact import Artifact, Samples
from leanmark.protocol.messages import Notice, Ready
from leanmark.techniques.base import Context, Technique
from leanmark.worker import prepare
from leanmark.workloads.base import Dataset, Recipe, Split, Workload
from leanmark.workloads.training import seeded

_BACKENDS = ("eager", "onnxruntime")
_APPLY_S = 0.05


class Tiny(Workload):
    recipe: ClassVar[Recipe | None] = Recipe(epochs=20, batch=16, learning_rate=3e-2)

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(0):
            return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def dataset(self) -> Dataset:
        inputs = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
        targets = (inputs.sum(1) > 2).long()
        return Dataset(
            train=Split(inputs=inputs[:300], targets=targets[:300]),
            test=Split(inputs=inputs[300:], targets=targets[300:]),
        )


@dataclass(frozen=True, slots=True)
class Scale(Technique):
    factor: float = 0.5

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        time.sleep(_APPLY_S)
        changed = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in changed.get_submodule("2").parameters():
                parameter.mul_(self.factor)
        return changed.train()

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        if torch.equal(before.get_parameter("2.weight"), after.get_parameter("2.weight")):
            raise TookNoEffect("the weights are the same")
        return {"factor": self.factor}


@dataclass(frozen=True, slots=True)
class EagerOnly(Scale):
    backends: ClassVar[tuple[str, ...]] = ("eager",)
    refusal: ClassVar[str] = "made for gradients"


@dataclass(frozen=True, slots=True)
class Graph(Technique):
    level: ClassVar[Literal["module", "graph"]] = "graph"
    backends: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    refusal: ClassVar[str] = "torch cannot run a graph"

    def apply_graph(self, source: Path, target: Path, context: Context) -> None:
        shutil.copy(source, target)

    def verify_graph(self, source: Path, target: Path) -> Mapping[str, Any]:
        return {"bytes": target.stat().st_size - source.stat().st_size}


class Loop(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


@dataclass(frozen=True, slots=True)
class Unexportable(Scale):
    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return nn.Sequential(*copy.deepcopy(model).children(), Loop())

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}


def _run(text: str, folder: Path, backends: tuple[str, ...] = _BACKENDS) -> Ready:
    return prepare.run(Tiny(), "tiny", chain.parse(text), folder, backends)


def _name(technique: type[Technique], options: str = "") -> str:
    return f"{__name__}:{technique.__name__}{options}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workload folder with its baseline, scaled once and changed as a graph after that."""
    made = tmp_path_factory.mktemp("tiny")
    for text in ("fp32", _name(Scale), f"{_name(Scale)}+{_name(Graph)}"):
        _run(text, made)
    return made


def test_baseline_is_trained_and_described(tmp_path: Path) -> None:
    ready = _run("fp32", tmp_path, ("eager",))
    artifact, samples = Artifact.of(tmp_path, "fp32"), Samples.load(tmp_path)

    assert ready.model["eager"].parameters == 4 * 8 + 8 + 8 * 2 + 2
    assert ready.model["eager"].macs == 4 * 8 + 8 * 2
    assert ready.model["eager"].size_bytes == (artifact.folder / "state.pt").stat().st_size
    assert ready.time_s > 0
    assert (ready.verified, ready.refusals) == ({}, {})
    assert samples.test_inputs.shape == (100, 4)
    assert samples.batch_inputs.shape == (256, 4)
    np.testing.assert_array_equal(samples.batch_targets, Tiny().dataset().train.targets[:256])
    outputs = artifact.load_outputs()
    assert (outputs.argmax(1) == samples.test_targets).mean() > 0.9
    module = artifact.load_module()
    np.testing.assert_allclose(module(torch.from_numpy(samples.test_inputs)).detach(), outputs, atol=1e-6)
    facts = json.loads(artifact.facts_file.read_text())
    assert facts == json.loads(json.dumps(dataclasses.asdict(ready)))
    assert not artifact.graph_file.exists()


def test_a_link_starts_from_the_chain_before(folder: Path) -> None:
    ready = _run(f"{_name(Scale)}+{_name(Scale, '(factor=3)')}", folder)
    outputs = {
        name: Artifact.of(folder, name).load_outputs()
        for name in ("fp32", _name(Scale), f"{_name(Scale)}+{_name(Scale, '(factor=3)')}")
    }

    fp32, once, twice = outputs.values()
    np.testing.assert_allclose(once, 0.5 * fp32, rtol=1e-5)
    np.testing.assert_allclose(twice, 1.5 * fp32, rtol=1e-5)
    assert ready.verified == {"factor": 3.0}
    assert set(ready.model) == {"eager", "onnxruntime"}
    assert ready.model["eager"].macs == ready.model["onnxruntime"].macs == 48


def test_cost_is_that_of_applying_alone(folder: Path) -> None:
    start = time.perf_counter()
    ready = _run(_name(Scale), folder)
    whole = time.perf_counter() - start

    assert _APPLY_S <= ready.time_s < whole


def test_writing_another_form_has_a_time_of_its_own_and_notices_in_pairs(folder: Path) -> None:
    told: list[Notice] = []
    watch = prepare.Stopwatch(told.append)
    ready = prepare.run(Tiny(), "tiny", chain.parse(_name(Scale)), folder, _BACKENDS, watch)
    assert set(ready.build_s) == {"onnxruntime"}  # eager only saves what it was given
    assert ready.build_s["onnxruntime"] > 0
    assert told == [
        Notice("begins"), Notice("ended"), Notice("begins", "onnxruntime"), Notice("ended", "onnxruntime")
    ]  # fmt: skip
    text = f"{_name(Scale)}+{_name(Graph)}"
    assert _run(text, folder).build_s == {}  # the graph was there already
    assert _run(_name(Unexportable), folder).build_s == {}


def test_graph_techniques_work_on_the_graph_before(folder: Path) -> None:
    text = f"{_name(Scale)}+{_name(Graph)}"
    ready = _run(text, folder)
    artifact = Artifact.of(folder, text)

    assert ready.verified == {"bytes": 0}
    assert ready.model["onnxruntime"].macs == 48
    assert ready.model["onnxruntime"].size_bytes == artifact.graph_file.stat().st_size
    assert ready.refusals["eager"].endswith("Graph does not run on eager: torch cannot run a graph")
    assert sorted(path.name for path in artifact.folder.iterdir()) == ["facts.json", "model.onnx"]


def test_a_graph_may_follow_a_graph(folder: Path) -> None:
    text = f"{_name(Scale)}+{_name(Graph)}+{_name(Graph)}"
    assert _run(text, folder).verified == {"bytes": 0}


def test_one_link_rules_a_backend_out_for_the_chain(folder: Path) -> None:
    _run(_name(EagerOnly), folder)
    ready = _run(f"{_name(EagerOnly)}+{_name(Scale)}", folder)

    assert set(ready.model) == {"eager"}
    assert ready.refusals["onnxruntime"].endswith("made for gradients")
    with pytest.raises(Unsupported, match="made for gradients"):
        _run(_name(EagerOnly), folder, ("onnxruntime",))


def test_a_graph_that_was_never_built_is_missed(tmp_path: Path) -> None:
    _run("fp32", tmp_path, ("eager",))

    with pytest.raises(Unsupported, match="no ONNX graph of fp32 to change: no backend that needs one"):
        _run(_name(Graph), tmp_path)


def test_a_failed_export_costs_only_its_backend(folder: Path) -> None:
    ready = _run(_name(Unexportable), folder)

    assert set(ready.model) == {"eager"}
    assert "Sequential cannot be exported to ONNX" in ready.refusals["onnxruntime"]
    with pytest.raises(Unsupported, match="no ONNX graph .* cannot be exported"):
        _run(f"{_name(Unexportable)}+{_name(Graph)}", folder)


def test_a_technique_that_does_nothing_is_caught(folder: Path) -> None:
    with pytest.raises(TookNoEffect, match="the weights are the same"):
        _run(_name(Scale, "(factor=1)"), folder)


def test_an_unavailable_backend_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "not installed: pip install onnx"
    monkeypatch.setattr("leanmark.backends.onnxruntime.OnnxRuntime.unavailable", lambda self: reason)

    refusals = _run(_name(Scale), folder).refusals

    assert refusals == {"onnxruntime": f"onnxruntime is not available: {reason}"}


def test_work_is_the_same_only_for_the_same_data_and_recipe(folder: Path) -> None:
    class Longer(Tiny):
        recipe: ClassVar[Recipe | None] = Recipe(epochs=21, batch=16, learning_rate=3e-2)

    class Newer(Tiny):
        version = 2

    samples = Samples.load(folder)
    changed = dataclasses.replace(samples, test_inputs=samples.test_inputs + np.float32(1e-3))

    works = [
        ("tiny", Tiny(), samples),
        ("other", Tiny(), samples),
        ("tiny", Longer(), samples),
        ("tiny", Newer(), samples),
        ("tiny", Tiny(), changed),
    ]
    parts = [prepare.work_parts(*work) for work in works]

    assert len({prepare.work_hash(*work) for work in works}) == 5
    assert len({str(one) for one in parts}) == 5
    assert parts[2]["recipe"] == "epochs 21, batch 16, learning_rate 0.03, weight_decay 0.0, seed 0"
    ready = _run(_name(Scale), folder)
    assert (ready.work, ready.work_parts) == (prepare.work_hash(*works[0]), parts[0])
