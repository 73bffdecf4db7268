"""What the two backends compute, what they say they ran, and what they need to be imported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leanmark.backends import onnx_cuda
from leanmark.backends.base import Backend, Work
from leanmark.backends.eager import Eager
from leanmark.backends.onnxruntime import OnnxRuntime
from leanmark.backends.torch_executable import TorchExecutable
from leanmark.devices.base import Accelerator
from leanmark.devices.cpu import Cpu
from leanmark.devices.cuda import Cuda
from leanmark.errors import Unsupported
from leanmark.models.artifact import Artifact
from leanmark.record import Phase
from leanmark.testing.clock import VirtualClock
from leanmark.testing.nvml import FakeGpu, FakeNvml
from leanmark.testing.power import Constant
from leanmark.workloads.base import Workload
from leanmark.workloads.cnn import Cnn
from leanmark.workloads.lstm import Lstm
from leanmark.workloads.mlp import Mlp
from leanmark.workloads.transformer import Transformer

_WORKLOADS = (Cnn, Mlp, Lstm, Transformer)


class Autocast(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out: torch.Tensor = self.module(x)
        return out.float()


class Branching(nn.Module):
    """The number of loops depends on the values: no graph can hold it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.fixture(scope="module", params=_WORKLOADS, ids=lambda kind: kind.__name__.lower())
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workload, Artifact]:
    """The untrained model of a workload, built for both backends."""
    workload: Workload = request.param()
    artifact = Artifact(tmp_path_factory.mktemp("built") / "fp32")
    module = workload.model().eval()
    artifact.save_module(module)
    for backend in (Eager(), OnnxRuntime()):
        backend.build(module, artifact, workload.dataset().train.inputs[:4].numpy())
    return workload, artifact


def _work(workload: Workload, batch: int, phase: Phase = "inference", threads: int = 1) -> Work:
    train = workload.dataset().train
    return Work(
        phase=phase,
        inputs=train.inputs[:batch].numpy(),
        targets=train.targets[:batch].numpy() if phase == "training" else None,
        threads=threads,
        device="cpu",
        workload=workload if phase == "training" else None,
    )


def _saved(module: nn.Module, folder: Path) -> Artifact:
    artifact = Artifact(folder)
    artifact.save_module(module.eval())
    return artifact


@pytest.mark.parametrize("batch", [1, 5])
def test_backends_agree_for_any_batch(built: tuple[Workload, Artifact], batch: int) -> None:
    workload, artifact = built
    inputs = workload.dataset().test.inputs[:300].numpy()
    eager = Eager().open(artifact, _work(workload, batch))
    onnxruntime = OnnxRuntime().open(artifact, _work(workload, batch))
    for executable in (eager, onnxruntime):
        executable.step()

    expected = eager.predict(inputs)

    assert expected.shape == (300, 10)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(onnxruntime.predict(inputs), expected, atol=1e-5)
    assert onnxruntime.executed().device == eager.executed().device == "cpu"


def test_float_models_run_in_float(built: tuple[Workload, Artifact]) -> None:
    workload, artifact = built

    operators = Eager().open(artifact, _work(workload, 4)).executed().operators

    assert operators
    assert all(name.endswith("[float32]") for name in operators)


@pytest.mark.parametrize("phase", ["inference", "training"])
def test_autocast_shows_in_every_heavy_operator(
    built: tuple[Workload, Artifact], tmp_path: Path, phase: Phase
) -> None:
    workload, artifact = built
    wrapped = _saved(Autocast(artifact.load_module()), tmp_path)

    operators = Eager().open(wrapped, _work(workload, 4, phase)).executed().operators

    forward = [name for name in operators if "_backward" not in name]
    assert forward
    assert all(name.endswith("[bfloat16]") for name in forward)
    assert not any(name.endswith("[float32]") for name in operators)


def test_operators_are_counted_once_each(tmp_path: Path) -> None:
    artifact = _saved(Cnn().model(), tmp_path)

    inference = Eager().open(artifact, _work(Cnn(), 4)).executed()
    training = Eager().open(artifact, _work(Cnn(), 4, "training")).executed()

    assert inference.operators == {"convolution[float32]": 6, "addmm[float32]": 1}
    assert inference.threads == torch.get_num_threads()
    assert training.operators == {
        "convolution[float32]": 6,
        "convolution_backward[float32]": 6,
        "addmm[float32]": 1,
        "mm[float32]": 2,
    }


def test_optimised_graph_shows_what_onnxruntime_runs(tmp_path: Path) -> None:
    artifact = _saved(nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()), tmp_path)
    OnnxRuntime().build(artifact.load_module(), artifact, Cnn().dataset().train.inputs[:1].numpy())

    executed = OnnxRuntime().open(artifact, _work(Cnn(), 4, threads=2)).executed()

    assert executed.operators["Conv"] == 1
    assert not {"BatchNormalization", "Relu"} & set(executed.operators)
    assert executed.threads == 2


def test_training_changes_a_copy(tmp_path: Path) -> None:
    workload = Mlp()
    artifact = _saved(workload.model(), tmp_path)
    inputs = workload.dataset().test.inputs[:8].numpy()
    before = Eager().open(artifact, _work(workload, 8)).predict(inputs)
    executable = Eager().open(artifact, _work(workload, 8, "training"))
    assert isinstance(executable, TorchExecutable)
    weights = [parameter.clone() for parameter in executable._module.parameters()]

    executable.step()

    assert any(
        not torch.equal(old, new) for old, new in zip(weights, executable._module.parameters(), strict=True)
    )
    np.testing.assert_array_equal(executable.predict(inputs), before)
    np.testing.assert_array_equal(Eager().open(artifact, _work(workload, 8)).predict(inputs), before)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    workload = Mlp()
    executable = Eager().open(_saved(workload.model(), tmp_path), _work(workload, 32, "training"))
    assert isinstance(executable, TorchExecutable)
    split = workload.dataset().train

    def loss() -> float:
        with torch.no_grad():
            outputs = executable._module(split.inputs[:32])
            return workload.loss(outputs, split.targets[:32]).item()

    first = loss()
    for _ in range(20):
        executable.step()

    assert loss() < 0.5 * first


def test_shipped_size_is_that_of_the_weights(built: tuple[Workload, Artifact]) -> None:
    workload, artifact = built
    weights = 4 * sum(parameter.numel() for parameter in workload.model().parameters())

    assert weights <= Eager().shipped_bytes(artifact) < weights + 30_000
    assert weights * 0.98 <= OnnxRuntime().shipped_bytes(artifact) < weights + 160_000


def test_a_model_no_graph_can_hold_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="Branching cannot be exported to ONNX: .*data-dependent"):
        OnnxRuntime().build(Branching(), Artifact(tmp_path), np.ones((2, 3), np.float32))


def test_export_is_quiet_and_leaves_no_trace(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import logging

    import onnx

    artifact = _saved(nn.Linear(4, 2), tmp_path)
    OnnxRuntime().build(artifact.load_module(), artifact, np.ones((1, 4), np.float32))

    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert logging.root.manager.disable == logging.NOTSET
    assert len(onnx.load(artifact.graph_file).graph.value_info) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "module.pt"]


@pytest.mark.parametrize("backend", [Eager(), OnnxRuntime()])
def test_backends_are_available_here(backend: Backend) -> None:
    assert backend.unavailable() is None


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else name)

    assert OnnxRuntime().unavailable() == "not installed: pip install onnx"


def test_onnxruntime_runs_without_torch(tmp_path: Path) -> None:
    artifact = _saved(nn.Linear(4, 2), tmp_path)
    OnnxRuntime().build(artifact.load_module(), artifact, np.ones((2, 4), np.float32))
    program = f"""
import sys
from pathlib import Path
import numpy as np
from leanmark.models.artifact import Artifact
from leanmark.backends.base import Work
from leanmark.backends.onnxruntime import OnnxRuntime
inputs = np.ones((2, 4), np.float32)
work = Work(phase="inference", inputs=inputs, targets=None, threads=1, device="cpu")
executable = OnnxRuntime().open(Artifact(Path({str(tmp_path)!r})), work)
executable.step(), executable.predict(inputs), executable.executed()
print(sorted({{"torch", "onnx", "onnxruntime"}} & set(sys.modules)))
"""

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "['onnxruntime']"


def test_training_memory_is_split_to_the_byte(tmp_path: Path) -> None:
    """Two hidden layers of 512 at batch 8: the outputs of both ReLUs and of the softmax are kept."""
    workload = Mlp()
    module = workload.model()
    artifact = _saved(module, tmp_path)
    training = Eager().open(artifact, _work(workload, 8, "training"))
    training.step()
    weights = 4 * sum(parameter.numel() for parameter in module.parameters())
    tensors = len(list(module.parameters()))
    relus, softmax, total_weight = 2 * 8 * 512 * 4, 8 * 10 * 4, 4
    assert training.memory_parts() == {
        "weights": weights,
        "gradients": weights,
        "optimizer_state": 2 * weights + 4 * tensors,  # Adam's two averages and a step counter each
        "activations": relus + softmax + total_weight,
    }
    inference = Eager().open(artifact, _work(workload, 8))
    assert inference.memory_parts() == {"weights": weights}


def _on_gpu(work: Work) -> Work:
    return replace(work, device="cuda")


def test_without_its_cuda_build_onnxruntime_says_what_to_install(built: tuple[Workload, Artifact]) -> None:
    workload, artifact = built
    assert OnnxRuntime().unavailable_on("cpu") is None
    why = "its build is for processors: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    assert OnnxRuntime().unavailable_on("cuda") == why
    with pytest.raises(Unsupported, match=f"ONNX Runtime has no CUDAExecutionProvider: {why}"):
        OnnxRuntime().open(artifact, _on_gpu(_work(workload, 2)))


def test_on_a_gpu_inputs_and_outputs_are_bound_and_the_provider_is_asserted(
    built: tuple[Workload, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's provider stands in for that of the GPU."""
    workload, artifact = built
    for name, value in (("PROVIDER", "CPUExecutionProvider"), ("PLACE", "cpu"), ("OPTIONS", {})):
        monkeypatch.setattr(onnx_cuda, name, value)
    executable = OnnxRuntime().open(artifact, _on_gpu(_work(workload, 3)))
    executable.step()
    inputs = workload.dataset().test.inputs[:5].numpy()
    expected = OnnxRuntime().open(artifact, _work(workload, 3))
    np.testing.assert_array_equal(executable.predict(inputs), expected.predict(inputs))
    assert executable.executed().device == "cuda"
    [bound] = executable._binding.copy_outputs_to_cpu()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(bound, expected.predict(workload.dataset().train.inputs[:3].numpy()))


def test_arithmetic_on_shapes_may_stay_on_the_processor() -> None:
    def event(provider: str, *kinds: str) -> dict[str, Any]:
        return {
            "provider": f"{provider}ExecutionProvider",
            "output_type_shape": [{kind: [2]} for kind in kinds],
        }

    shapes = [event("CPU", "int64"), event("CPU", "bool", "int32")]
    assert onnx_cuda.devices([event("CUDA", "float"), *shapes]) == "cuda"
    for kind in ("float", "float16", "bfloat16"):
        assert onnx_cuda.devices([event("CUDA", "float"), event("CPU", "int64", kind)]) == "cpu+cuda"
    assert onnx_cuda.devices(shapes) == "cpu"


def test_a_provider_that_falls_back_is_refused(
    built: tuple[Workload, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    workload, artifact = built
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with (
        pytest.raises(Unsupported, match="CUDAExecutionProvider does not start here"),
        pytest.warns(UserWarning),
    ):
        OnnxRuntime().open(artifact, _on_gpu(_work(workload, 2)))


def test_its_gpu_is_identified_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with FakeNvml([FakeGpu(power=Constant(100.0), uuid="GPU-1")], VirtualClock()).installed():
        accelerator = OnnxRuntime().accelerator(Cuda(), "cuda")
        assert accelerator.facts() == {
            "gpu": "NVIDIA H100 80GB HBM3", "gpu_uuid": "GPU-1", "compute_capability": "9.0"
        }  # fmt: skip
    assert (accelerator.name, accelerator.queues, accelerator.memory()) == ("cuda", False, {})
    assert type(OnnxRuntime().accelerator(Cpu(), "cpu")) is Accelerator
