from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from leanmark.backends.base import Work
from leanmark.backends.eager import Eager
from leanmark.devices.cpu import Cpu
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.record import Phase
from leanmark.techniques.base import Context
from leanmark.techniques.bf16 import Bf16
from leanmark.workloads.base import Dataset, Split, Workload


class Rows(Workload):
    def model(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def dataset(self) -> Dataset:
        inputs = torch.randn(32, 8, 8, generator=torch.Generator().manual_seed(0))
        split = Split(inputs=inputs, targets=torch.arange(32) % 10)
        return Dataset(train=split, test=split)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)), nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10)
    )


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return nn.Sequential(encoder, nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("broken_techniques")


def context(model: nn.Module) -> Context:
    return Context(workload=Rows(), baseline=model)


def executed(model: nn.Module, folder: Path, phase: Phase) -> Executed:
    artifact = Artifact(folder)
    artifact.save_module(model)
    train = Rows().dataset().train
    work = Work(
        phase=phase,
        inputs=train.inputs.numpy(),
        targets=train.targets.numpy(),
        threads=1,
        device="cpu",
        workload=Rows(),
    )
    return Eager().open(artifact, work).executed()


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize(
    "model", [Rows().model(), convolutional(), transformer()], ids=["mlp", "cnn", "transformer"]
)
def test_everything_heavy_runs_in_bfloat16(model: nn.Module, phase: Phase, tmp_path: Path) -> None:
    wrapped = Bf16().apply(model, context(model))
    Bf16().verify(model, wrapped)
    ran = executed(wrapped, tmp_path, phase)
    Bf16().verify_executed(ran)
    assert any(name.endswith("[bfloat16]") for name in ran.operators)
    with pytest.raises(TookNoEffect, match="not everything ran in bfloat16"):
        Bf16().verify_executed(executed(model, tmp_path, phase))


def test_outputs_are_float32_and_close(tmp_path: Path) -> None:
    model = Rows().model().eval()
    wrapped = Bf16().apply(model, context(model))
    inputs = Rows().dataset().train.inputs
    outputs, expected = wrapped(inputs), model(inputs)
    assert outputs.dtype == torch.float32
    error = ((outputs - expected).norm() / expected.norm()).item()
    assert 1e-4 < error < Bf16.tolerance


def test_gradients_reach_the_wrapped_float32_weights_only() -> None:
    model = Rows().model()
    wrapped = Bf16().apply(model, context(model))
    assert all(parameter.grad is None for parameter in wrapped.parameters())
    wrapped.train()
    wrapped(Rows().dataset().train.inputs).sum().backward()
    for parameter in wrapped.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.is_autocast_enabled("cpu")


def test_not_entering_autocast_is_caught(tmp_path: Path, broken: ModuleType) -> None:
    model = Rows().model()
    technique = broken.AutocastNotEntered()
    wrapped = technique.apply(model, context(model))
    technique.verify(model, wrapped)  # the wrapper is there: only what ran tells
    with pytest.raises(TookNoEffect, match=r"not everything ran in bfloat16: addmm\[float32\]"):
        technique.verify_executed(executed(wrapped, tmp_path, "inference"))


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        (("convolution[bfloat16]", "add[float32]"), None),
        (("mm[bfloat16]", "_scaled_dot_product_flash_attention_for_cpu_backward[bfloat16+float32]"), None),
        (("convolution[bfloat16]", "addmm[float32]"), r"addmm\[float32\]"),
        (("mm[bfloat16]", "_scaled_dot_product_flash_attention_for_cpu[float32]"), "_scaled_dot_product"),
        (("add[bfloat16]",), "no matrix product"),
        ((), "no matrix product"),
    ],
)
def test_what_ran_decides(operators: tuple[str, ...], message: str | None) -> None:
    ran = Executed(operators=dict.fromkeys(operators, 1), threads=1, device="cpu")
    if message is None:
        Bf16().verify_executed(ran)
        return
    with pytest.raises(TookNoEffect, match=message):
        Bf16().verify_executed(ran)


def test_a_model_that_autocast_cannot_run_is_refused() -> None:
    class NeedsFloat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            filled = torch.zeros(2, 8, 8)
            filled[torch.tensor([0, 1])] = self.linear(x)
            return filled

    with pytest.raises(Unsupported, match="NeedsFloat does not run in bfloat16 here: .*dtype"):
        Bf16().apply(NeedsFloat(), context(nn.Identity()))


@pytest.mark.parametrize(
    ("sets", "native"),
    [
        ("avx2 fma avx512_bf16", True),
        ("avx2 fma amx_bf16", True),
        ("asimd bf16 i8mm", True),
        ("avx2 fma avx512f", False),
        (None, False),
    ],
)
def test_native_instructions_are_a_fact(
    monkeypatch: pytest.MonkeyPatch, sets: str | None, native: bool
) -> None:
    monkeypatch.setattr(Cpu, "describe", lambda _: {"instruction_sets": sets})
    model = Rows().model()
    assert Bf16().verify(model, Bf16().apply(model, context(model))) == {"native_bf16": native}


def test_an_unwrapped_model_is_not_bf16() -> None:
    with pytest.raises(TookNoEffect, match="Sequential does not enter autocast"):
        Bf16().verify(Rows().model(), Rows().model())
