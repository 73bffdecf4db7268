"""Every built-in workload: its data, how well its recipe trains it, its student."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from leanmark import registry
from leanmark.errors import UsageError
from leanmark.models.macs import count_macs
from leanmark.workloads import digits
from leanmark.workloads.base import Recipe, Split, Workload
from leanmark.workloads.training import outputs, seeded, train

_NAMES = ("cnn", "mlp", "lstm", "transformer")


def _workload(name: str) -> Workload:
    made: Workload = registry.load("workloads", name)()
    return made


def _accuracy(model: nn.Module, split: Split) -> float:
    return (outputs(model, split.inputs).argmax(1) == split.targets).float().mean().item()


def _tiny() -> tuple[nn.Module, Split, Recipe]:
    with seeded(1):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        split = Split(inputs=torch.rand(33, 4), targets=torch.arange(33) % 3)
    return model, split, Recipe(epochs=2, batch=8, learning_rate=1e-2)


def test_digits_are_a_fixed_stratified_split() -> None:
    dataset = digits.images()

    assert dataset.train.inputs.shape == (1257, 1, 8, 8)
    assert dataset.test.inputs.shape == (540, 1, 8, 8)
    assert dataset.train.inputs.dtype == torch.float32
    assert dataset.train.targets.dtype == torch.int64
    assert (float(dataset.train.inputs.min()), float(dataset.train.inputs.max())) == (0.0, 1.0)
    counts = torch.bincount(dataset.test.targets, minlength=10)
    assert counts.min() >= 52 and counts.max() <= 56
    assert dataset.test.targets[:8].tolist() == [1, 4, 5, 6, 9, 1, 2, 2]
    rows = digits.rows_of_pixels()
    assert torch.equal(rows.test.inputs, dataset.test.inputs.squeeze(1))
    assert digits.images() is dataset


@pytest.mark.parametrize(
    ("name", "least"), [("cnn", 0.985), ("mlp", 0.97), ("lstm", 0.97), ("transformer", 0.97)]
)
def test_recipe_reaches_its_accuracy(name: str, least: float) -> None:
    workload = _workload(name)
    dataset, model = workload.dataset(), workload.model()
    assert workload.recipe is not None

    train(model, dataset.train, workload.recipe, workload.loss)

    assert _accuracy(model, dataset.test) >= least


@pytest.mark.parametrize("name", _NAMES)
def test_models_are_seeded_and_students_smaller(name: str) -> None:
    workload = _workload(name)
    inputs = workload.dataset().test.inputs[:2]
    model, student = workload.model().eval(), workload.student().eval()

    assert torch.equal(outputs(model, inputs), outputs(workload.model().eval(), inputs))
    assert outputs(model, inputs).shape == outputs(student, inputs).shape == (2, 10)
    assert count_macs(student, inputs[:1]) < 0.26 * count_macs(model, inputs[:1])
    parameters = [sum(p.numel() for p in one.parameters()) for one in (model, student)]
    assert parameters[1] < 0.27 * parameters[0]


@pytest.mark.parametrize("name", _NAMES)
def test_a_training_step_works_on_a_single_sample(name: str) -> None:
    workload = _workload(name)
    split, model = workload.dataset().train, workload.model().train()
    optimizer = workload.optimizer(model.parameters())
    before = [parameter.clone() for parameter in model.parameters()]

    workload.loss(model(split.inputs[:1]), split.targets[:1]).backward()
    optimizer.step()

    after = list(model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_importing_a_workload_imports_no_sklearn() -> None:
    program = "import sys, leanmark.workloads.cnn, leanmark.workloads.lstm;print('sklearn' in sys.modules)"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "False"


def test_training_repeats_exactly_and_leaves_the_seed_alone() -> None:
    weights = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        model, split, recipe = _tiny()
        state = torch.random.get_rng_state()
        train(model, split, recipe, nn.functional.cross_entropy)
        assert torch.equal(state, torch.random.get_rng_state())
        assert not model.training
        weights.append(model.get_parameter("0.weight").detach())

    assert torch.equal(*weights)


def test_training_returns_the_last_loss_and_lowers_it() -> None:
    model, split, recipe = _tiny()
    first = nn.functional.cross_entropy(model(split.inputs), split.targets).item()
    longer = Recipe(epochs=100, batch=recipe.batch, learning_rate=3e-2)

    last = train(model, split, longer, nn.functional.cross_entropy)

    assert isinstance(last, float)
    assert nn.functional.cross_entropy(model(split.inputs), split.targets).item() < first


def test_outputs_are_exact_plain_floats() -> None:
    model = nn.Linear(4, 3).eval()
    inputs = torch.rand(600, 4)

    found = outputs(model, inputs)

    assert torch.allclose(found, model(inputs).detach(), atol=1e-6)
    assert not found.is_inference()  # a teacher's outputs take part in a student's training
    assert outputs(nn.Linear(4, 3).bfloat16(), inputs.bfloat16()).dtype == torch.float32


def test_outputs_name_a_model_that_returns_something_else() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(UsageError, match="Pair must return one tensor .* not a tuple"):
        outputs(Pair(), torch.rand(2, 3))
    with pytest.raises(UsageError, match=r"not a tensor of shape \(6,\)"):
        outputs(nn.Flatten(0), torch.rand(2, 3))
