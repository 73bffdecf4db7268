"""A training run to a quality target: what is trained, with which techniques, and when it ends."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar, cast

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from leanmark import chain
from leanmark.backends import float32
from leanmark.devices.torch_cuda import TorchCuda
from leanmark.errors import Implausible, TookNoEffect, Unsupported
from leanmark.protocol.messages import Notice, Trained
from leanmark.record import BASELINE
from leanmark.techniques.base import Context
from leanmark.techniques.prune import Prune
from leanmark.testing.clock import VirtualClock
from leanmark.testing.torch_cuda import FakeTorchCuda
from leanmark.worker import quality_run
from leanmark.workloads.base import Dataset, Recipe, Split, Workload
from leanmark.workloads.training import outputs, seeded, train

STEPS = 19
"""Batches of 16 in 300 samples."""


class Tiny(Workload):
    recipe: ClassVar[Recipe | None] = Recipe(epochs=20, batch=16, learning_rate=3e-2)

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 2))

    def dataset(self) -> Dataset:
        inputs = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
        return _split(inputs, (inputs.sum(1) > 2).long())


class Line(Tiny):
    """A regression."""

    target: ClassVar[float | None] = 0.8

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Linear(4, 1)

    def dataset(self) -> Dataset:
        inputs = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
        return _split(inputs, inputs.sum(1, keepdim=True))


class Exact(Line):
    def dataset(self) -> Dataset:
        made = super().dataset()
        return replace(made, test=replace(made.test, targets=made.test.targets.double()))


class Diverging(Line):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).mean() * torch.inf


class Made(Tiny):
    recipe = None


class Wide(Tiny):
    """Wide enough to prune, with a student."""

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def student(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Pictures(Tiny):
    recipe = Recipe(epochs=2, batch=16, learning_rate=1e-3)
    strides: ClassVar[list[tuple[int, ...]]] = []

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(seed):
            return nn.Sequential(Noting(), nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 2))

    def dataset(self) -> Dataset:
        inputs = torch.rand(80, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        targets = (inputs.sum((1, 2, 3)) > 16).long()
        return Dataset(
            train=Split(inputs=inputs[:64], targets=targets[:64]),
            test=Split(inputs=inputs[64:], targets=targets[64:]),
        )


class Noting(nn.Module):
    """Notes the strides of what is trained on."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.training:
            Pictures.strides.append(inputs.stride())
        return inputs


def _split(inputs: torch.Tensor, targets: torch.Tensor) -> Dataset:
    return Dataset(
        train=Split(inputs=inputs[:300], targets=targets[:300]),
        test=Split(inputs=inputs[300:], targets=targets[300:]),
    )


def run(workload: Workload, target: float | None, seed: int = 0, technique: str = BASELINE) -> Trained:
    return quality_run.run(workload, chain.parse(technique), target, seed, lambda notice: None)


def test_a_run_ends_with_the_first_epoch_that_is_good_enough() -> None:
    told: list[Notice] = []
    found = quality_run.run(Tiny(), (), 0.9, 0, told.append)
    *before, last = found.qualities
    assert (found.metric, found.target, found.reached) == ("accuracy", 0.9, True)
    assert before
    assert max(before) < 0.9 <= last
    assert (found.epochs, found.longest) == (len(found.qualities), 20)
    assert found.steps == STEPS * found.epochs
    assert 0 < found.looking_s < found.time_s
    assert [notice.what for notice in told] == ["begins", "ended"]


def test_looking_changes_nothing_about_the_training() -> None:
    workload = Tiny()
    assert workload.recipe is not None
    found = run(workload, 2.0)
    assert (found.reached, found.epochs, found.steps) == (False, 20, 20 * STEPS)
    module, data = workload.model(), workload.dataset()
    train(module, data.train, workload.recipe, workload.loss)
    right = outputs(module, data.test.inputs).argmax(1) == data.test.targets
    assert found.qualities[-1] == pytest.approx(right.float().mean().item(), abs=1e-7)


def test_seeds_shuffle() -> None:
    first, again, other = (run(Tiny(), 2.0, seed).qualities for seed in (0, 0, 1))
    assert first == again != other


def test_a_seed_draws_the_first_weights_too() -> None:
    drawn: list[int] = []

    class Watched(Tiny):
        def model(self, seed: int = 0) -> nn.Module:
            drawn.append(seed)
            return super().model(seed)

    for seed in (0, 3):
        run(Watched(), 0.6, seed)
    assert drawn == [0, 3]
    weights = [Tiny().model(seed).state_dict()["0.weight"] for seed in (0, 0, 3)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("technique", "ran"),
    [
        ("bf16", "mm[bfloat16]"),
        ("fused_optimizer", "fused_update"),
        ("bf16+fused_optimizer", "fused_update"),
        ("checkpointing", "recomputed_region"),
    ],
)
def test_a_technique_acts_on_every_step_of_the_training(technique: str, ran: str) -> None:
    found = run(Tiny(), 2.0, technique=technique)
    assert ran in found.operators
    assert (found.epochs, found.steps, found.earlier_s) == (20, 20 * STEPS, 0.0)
    assert found.qualities[-1] > 0.9


def test_channels_last_is_the_layout_of_what_is_trained() -> None:
    Pictures.strides.clear()
    found = run(Pictures(), 2.0, technique="channels_last")
    assert (found.epochs, found.steps) == (2, 8)
    assert Pictures.strides == [(32, 1, 8, 2)] * 9  # and that of the step that is looked at


def test_pruning_begins_with_a_trained_model_and_ends_at_the_target() -> None:
    plain = run(Wide(), 2.0)
    found = run(Wide(), 0.8, technique="prune")
    assert (found.reached, found.longest) == (True, Wide.finetune.epochs)
    assert found.epochs <= 3
    assert found.steps == plain.steps + found.epochs * 5  # batches of 64 in 300 samples
    assert 0 < found.earlier_s < found.time_s


def test_a_student_learns_until_it_is_good_enough() -> None:
    found = run(Wide(), 0.8, 1, technique="distill")
    assert (found.reached, found.longest) == (True, 20)
    assert found.steps == 20 * STEPS + found.epochs * STEPS


def test_what_acts_on_a_step_leaves_no_trace_in_the_next_technique() -> None:
    """A recomputed block keeps its forward pass; a copy of it that was pruned would run the old weights."""
    found = run(Wide(), 2.0, technique="checkpointing+prune")
    assert "recomputed_region" in found.operators
    assert found.qualities[-1] > 0.8


def test_a_technique_after_the_last_training_is_refused() -> None:
    with pytest.raises(Unsupported, match="nothing is trained after bf16: only before prune"):
        run(Wide(), 0.8, technique="prune+bf16")


def test_a_technique_that_is_not_in_the_training_is_found_out() -> None:
    with pytest.raises(TookNoEffect, match="not everything ran in bfloat16"):
        run(Wide(), 0.8, technique="bf16+distill")  # the student is another model


def test_a_training_loop_of_its_own_is_judged_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Prune):
        def apply(self, model: nn.Module, context: Context) -> nn.Module:
            return super().apply(model, replace(context, trainer=None))

    monkeypatch.setattr(chain, "build", lambda link: Own())
    found = run(Wide(), 0.8, technique="prune")
    assert (found.epochs, found.longest, len(found.qualities)) == (1, 1, 1)


def test_a_regression_has_a_target_of_its_own_and_in_r2() -> None:
    found = run(Line(), None)
    assert (found.metric, found.target, found.reached) == ("r2", 0.8, True)
    assert found.qualities[-1] >= 0.8


def test_training_that_diverges_ends_and_says_so() -> None:
    with pytest.raises(Implausible, match="r2 was nan after epoch 1: training diverged"):
        run(Diverging(), 0.5)


@pytest.mark.parametrize(
    ("workload", "target", "reason"),
    [
        (Made(), 0.9, "comes trained: there is no recipe"),
        (Tiny(), None, "the workload states no target of its own"),
        (Exact(), 0.9, "no targets that a training run could be judged by"),
    ],
)
def test_what_cannot_be_trained_to_a_target_says_why(
    workload: Workload, target: float | None, reason: str
) -> None:
    with pytest.raises(Unsupported, match=reason):
        run(workload, target)


class Behind(TorchCuda):
    """A device that works later than it is asked to, whose tensors are the processor's."""

    name = "cpu"


class Launching(nn.Module):
    """Takes the device ``STEP_S`` in training, and ``LOOK_S`` else."""

    def __init__(self, cuda: FakeTorchCuda) -> None:
        super().__init__()
        self.inner, self._launch = nn.Linear(4, 2), cuda.launch

    def __deepcopy__(self, memo: object) -> Launching:
        return self  # a fake is one device, whatever copies of models there are

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self._launch(STEP_S if self.training else LOOK_S)
        return cast(torch.Tensor, self.inner(inputs))


STEP_S, LOOK_S = 0.5, 0.1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeTorchCuda:
    clock = VirtualClock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now_s)
    monkeypatch.setattr(float32, "multiply", lambda how: None)
    return FakeTorchCuda(clock)


def test_a_device_that_is_behind_is_waited_for_before_each_look_and_at_the_end(cuda: FakeTorchCuda) -> None:
    class OnDevice(Tiny):
        def model(self, seed: int = 0) -> nn.Module:
            return Launching(cuda)

    cuda.launch(100.0)  # what it is still busy with is nobody's training
    found = quality_run.run(OnDevice(), (), 2.0, 0, lambda notice: None, Behind(cuda))
    assert found.epochs == 20
    assert found.looking_s == pytest.approx(20 * LOOK_S)
    assert found.time_s == pytest.approx(20 * (STEPS * STEP_S + LOOK_S))


@pytest.mark.parametrize("technique", ["prune", "distill", "bf16", "checkpointing+prune"])
def test_techniques_train_elsewhere_as_they_do_here(technique: str, cuda: FakeTorchCuda) -> None:
    here = run(Wide(), 2.0, technique=technique)
    links = chain.parse(technique)
    there = quality_run.run(Wide(), links, 2.0, 0, lambda notice: None, Behind(cuda))
    assert (there.qualities, there.steps, there.operators) == (here.qualities, here.steps, here.operators)


def test_products_are_in_float32_unless_a_technique_says_otherwise(
    cuda: FakeTorchCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(float32, "multiply", asked.append)
    quality_run.run(Tiny(), (), 0.6, 0, lambda notice: None, Behind(cuda))
    assert asked == ["ieee"]
    monkeypatch.setattr(float32, "observed", lambda device: "tf32")
    with pytest.raises(TookNoEffect, match=r"no technique lowers the precision, but these ran: addmm\[tf32"):
        quality_run.run(Tiny(), (), 0.6, 0, lambda notice: None, Behind(cuda))


def test_a_training_loop_of_its_own_is_refused_elsewhere(
    cuda: FakeTorchCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Prune):
        def apply(self, model: nn.Module, context: Context) -> nn.Module:
            return super().apply(model, replace(context, trainer=None))

    monkeypatch.setattr(chain, "build", lambda link: Own())
    with pytest.raises(Unsupported, match="a training loop of its own, which is on the processor"):
        quality_run.run(Wide(), chain.parse("prune"), 0.8, 0, lambda notice: None, Behind(cuda))


def test_a_scaled_loss_trains_as_a_plain_one() -> None:
    """A power of two is taken out of the gradients without a trace."""

    def weights(scaler: GradScaler | None) -> torch.Tensor:
        workload = Line()
        assert workload.recipe is not None
        model, split = workload.model(), workload.dataset().train
        train(model, split, workload.recipe, workload.loss, deploy=lambda step: replace(step, scaler=scaler))
        return next(model.parameters())

    assert torch.equal(weights(None), weights(GradScaler("cpu", init_scale=2.0**10)))
