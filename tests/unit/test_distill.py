from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from leanmark import registry
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context
from leanmark.techniques.distill import Distill, taught
from leanmark.workloads.base import Dataset, Recipe, Split, Workload
from leanmark.workloads.training import outputs, seeded


class Signs(Workload):
    """Which of the 8 sign patterns three inputs have; labels of the training set may be wrong."""

    recipe = Recipe(epochs=20, batch=32, learning_rate=2e-2)

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 8))

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 8))

    def dataset(self) -> Dataset:
        inputs = torch.randn(256, 3, generator=torch.Generator().manual_seed(2))
        targets = (inputs > 0).long() @ torch.tensor([1, 2, 4])
        shown = targets.flip(0) if self.wrong else targets
        return Dataset(train=Split(inputs=inputs, targets=shown), test=Split(inputs=inputs, targets=targets))


class ExactTeacher(nn.Module):
    """Logits that prefer the right class by far."""

    def __init__(self) -> None:
        super().__init__()
        self.heavy = nn.Parameter(torch.zeros(10_000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 8.0 * nn.functional.one_hot((x > 0).long() @ torch.tensor([1, 2, 4]), 8).float()


def accuracy(model: nn.Module, split: Split) -> float:
    return (outputs(model, split.inputs).argmax(1) == split.targets).float().mean().item()


@pytest.mark.parametrize(("alpha", "least", "most"), [(1.0, 0.9, 1.0), (0.0, 0.0, 0.4)])
def test_student_follows_the_teacher_and_not_wrong_labels(alpha: float, least: float, most: float) -> None:
    workload, teacher = Signs(wrong=True), ExactTeacher()
    student = Distill(alpha=alpha).apply(teacher, Context(workload=workload, baseline=teacher))
    assert least <= accuracy(student, workload.dataset().test) <= most
    assert not student.training


def test_loss_is_hintons() -> None:
    outputs_, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    loss = Distill(temperature=2.0, alpha=0.75).loss()(
        outputs_, torch.cat([teacher, torch.tensor([[0.0]])], 1)
    )

    def softmax(a: float, b: float) -> tuple[float, float]:
        return math.exp(a) / (math.exp(a) + math.exp(b)), math.exp(b) / (math.exp(a) + math.exp(b))

    (p0, p1), (q0, q1) = softmax(0.0, 2.0), softmax(1.0, 0.0)
    divergence = p0 * math.log(p0 / q0) + p1 * math.log(p1 / q1)
    entropy = -math.log(softmax(2.0, 0.0)[0])
    assert loss.item() == pytest.approx(0.75 * 4.0 * divergence + 0.25 * entropy, rel=1e-6)


def test_taught_split_carries_logits_and_labels() -> None:
    split = Signs().dataset().train
    found = taught(ExactTeacher(), split)
    assert found.targets.shape == (256, 9)
    assert torch.equal(found.targets[:, :-1].argmax(1), split.targets)
    assert torch.equal(found.targets[:, -1].long(), split.targets)
    assert found.inputs is split.inputs


def test_teacher_stays_as_it_was() -> None:
    teacher = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 8)).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    taught(teacher, Signs().dataset().train)
    assert teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_facts_name_both_sides() -> None:
    workload = Signs()
    assert Distill().verify(workload.model(), workload.student()) == {
        "teacher": "Sequential",
        "student": "Sequential",
        "parameters_before": 3 * 64 + 64 + 64 * 8 + 8,
        "parameters_after": 3 * 16 + 16 + 16 * 8 + 8,
    }


def test_a_student_of_the_same_size_is_caught() -> None:
    with pytest.raises(TookNoEffect, match="the student Sequential has 776 parameters, its teacher 776"):
        Distill().verify(Signs().model(), Signs().model())


def test_regression_is_refused() -> None:
    split = Split(inputs=torch.zeros(4, 3), targets=torch.zeros(4, 1))
    with pytest.raises(Unsupported, match="no classes"):
        taught(nn.Linear(3, 1), split)


def test_a_workload_without_student_is_refused() -> None:
    class Bare(Signs):
        student = Workload.student

    with pytest.raises(Unsupported, match=r"Bare defines no student\(\)"):
        Distill().apply(Signs().model(), Context(workload=Bare(), baseline=Signs().model()))


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": -1.0}, {"alpha": 1.5}, {"alpha": -0.1}]
)
def test_options_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Distill(**options)


def test_techniques_are_named_without_torch() -> None:
    names = ["prune", "int8", "bf16", "distill"]
    assert set(names) <= set(registry.rows("techniques"))
    code = (
        "import sys; from leanmark import registry\n"
        f"for name in {names}: registry.load('techniques', name)()\n"
        "loaded = {'torch', 'onnx', 'onnxruntime', 'torch_pruning'} & set(sys.modules)\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
