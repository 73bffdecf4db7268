"""The OpenVINO backend: what it computes, what it says it ran, and what is said where it is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leanmark import plan
from leanmark.backends.base import Work
from leanmark.backends.eager import Eager
from leanmark.backends.openvino import OpenVino
from leanmark.measuring import environment
from leanmark.models import fidelity
from leanmark.models.artifact import Artifact
from leanmark.plan import QUICK, Selection
from leanmark.workloads.base import Workload
from leanmark.workloads.cnn import Cnn
from leanmark.workloads.lstm import Lstm
from leanmark.workloads.mlp import Mlp
from leanmark.workloads.transformer import Transformer

needed = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


def _built(module: nn.Module, folder: Path, example: torch.Tensor) -> Artifact:
    artifact = Artifact(folder)
    artifact.save_module(module.eval())
    for backend in (Eager(), OpenVino()):
        backend.build(artifact.load_module(), artifact, example.numpy())
    return artifact


def _work(inputs: torch.Tensor, threads: int = 1) -> Work:
    return Work(phase="inference", inputs=inputs.numpy(), targets=None, threads=threads, device="cpu")


@needed
@pytest.mark.parametrize("kind", [Cnn, Mlp, Lstm, Transformer])
def test_it_computes_what_torch_does_in_float(kind: type[Workload], tmp_path: Path) -> None:
    workload = kind()
    data = workload.dataset()
    artifact = _built(workload.model(), tmp_path, data.train.inputs[:4])
    step = _work(data.train.inputs[:3], threads=2)
    executable: Any = OpenVino().open(artifact, step)
    executable.step()
    expected = Eager().open(artifact, step).predict(step.inputs)
    np.testing.assert_allclose(executable._outputs, expected, atol=1e-5)
    inputs = data.test.inputs[:300].numpy()  # a whole chunk and a part of one
    expected = Eager().open(artifact, step).predict(inputs)
    np.testing.assert_allclose(executable.predict(inputs), expected, atol=1e-5)
    executed = executable.executed()
    assert (executed.threads, executed.device) == (2, "cpu")
    fidelity.check_float32(executed.operators)
    assert any(name.endswith("[float32]") for name in executed.operators)


@needed
def test_the_executed_graph_shows_what_was_fused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    inputs = torch.ones(2, 1, 8, 8)
    operators = OpenVino().open(_built(module, tmp_path, inputs), _work(inputs)).executed().operators
    assert operators["Convolution[float32]"] == 1
    assert operators["FullyConnected[float32]"] == 1
    assert not any("Relu" in name or "Eltwise" in name or "BatchNorm" in name for name in operators)


@needed
def test_it_runs_without_torch(tmp_path: Path) -> None:
    _built(nn.Linear(4, 2), tmp_path, torch.ones(2, 4))
    program = f"""
import sys
from pathlib import Path
import numpy as np
from leanmark.models.artifact import Artifact
from leanmark.backends.base import Work
from leanmark.backends.openvino import OpenVino
inputs = np.ones((2, 4), np.float32)
work = Work(phase="inference", inputs=inputs, targets=None, threads=1, device="cpu")
executable = OpenVino().open(Artifact(Path({str(tmp_path)!r})), work)
executable.step(), executable.predict(inputs), executable.executed()
print(sorted({{"torch", "onnx", "onnxruntime", "openvino"}} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "['openvino']"


@needed
def test_it_is_available_here() -> None:
    assert OpenVino().unavailable() is None
    assert OpenVino().unavailable_on("cpu") is None


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openvino" else name)
    assert OpenVino().unavailable() == "not installed: pip install openvino"


def test_only_a_run_that_asks_for_it_measures_it_and_records_its_version() -> None:
    usual = plan.make(Selection(), QUICK)
    assert {case.backend for case in usual.cases} == {"eager", "onnxruntime"}
    assert "openvino" not in environment.collect(backends={"eager"}).software
    assert "openvino" in environment.collect(backends={"eager", "openvino"}).software
