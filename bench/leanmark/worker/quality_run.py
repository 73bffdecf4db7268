"""One training run to a quality target, from the first weights, in a process of its own.

After MLPerf Training ("time to train"; Mattson et al., MLSys 2020): the clock runs until the quality on data
held out first reaches the target, looked at when an epoch ends; looking is part of the run. The recipe stays
as it is, its learning rate included, so what a run can reach is what the recipe reaches. Copying the samples
to the device is part of the run; starting the device is not.

A technique that trains nothing by itself (mixed precision, a layout, compiling) acts on the training that
follows it. One that retrains (pruning, distillation) begins with the model trained by the whole recipe, which
is part of the run too, and its own training is the one that ends at the target. Techniques find and leave a
model on the processor, wherever it trains.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn

from leanmark import chain
from leanmark.backends import float32
from leanmark.backends.profiled import operators
from leanmark.chain import Link
from leanmark.devices.base import Accelerator
from leanmark.errors import Implausible, TookNoEffect, Unsupported
from leanmark.models import fidelity
from leanmark.models.executed import Executed
from leanmark.protocol.messages import Notice, Trained
from leanmark.techniques.base import Context, Technique
from leanmark.techniques.torch_step import TorchStep
from leanmark.worker.prepare import Stopwatch
from leanmark.workloads.base import Recipe, Split, Workload
from leanmark.workloads.training import Loss, outputs, train, training_steps


def run(
    workload: Workload,
    links: Sequence[Link],
    target: float | None,
    seed: int,
    tell: Callable[[Notice], None],
    device: Accelerator | None = None,
) -> Trained:
    """Train on ``device`` (``None``: the processor) with the techniques of ``links`` until ``target``
    (``None``: the workload's own) is reached, or the recipe ends.

    ``seed`` draws the first weights, and is added to the recipe's, which shuffles the samples.

    Raises:
        Unsupported: there is no recipe, no target, or no quality that is known without another model; or
            the techniques do not fit, or the last of them acts on no training.
        Implausible: the quality became NaN or infinite.
        TookNoEffect: a technique is not in what was trained.
    """
    if workload.recipe is None:
        raise Unsupported("it comes trained: there is no recipe to train it by")
    wanted = workload.target if target is None else target
    if wanted is None:
        raise Unsupported("the workload states no target of its own: give one")
    techniques = [chain.build(link) for link in links]
    retrain = [one.retrains for one in techniques]
    if any(retrain) and not retrain[-1]:
        raise Unsupported(
            f"nothing is trained after {links[-1]}: only before {links[retrain.index(True)]} does it matter"
        )
    held_out = workload.dataset().test
    metric = fidelity.metric(held_out.targets.numpy())  # refused before it is trained, not after
    device = device or Accelerator()
    judge = _Judge(held_out, metric, wanted, device)
    training = _Training(workload, techniques, seed, judge, device)
    watch = Stopwatch(tell)
    device.synchronize()  # which starts it, and it is idle when the clock begins
    with _caches_of_its_own(), watch:
        training.play(replace(workload.recipe, seed=workload.recipe.seed + seed))
    return Trained(
        metric=metric,
        target=wanted,
        reached=judge.found[-1] >= wanted,
        qualities=tuple(judge.found),
        epochs=len(judge.found),
        longest=training.longest,
        steps=training.steps,
        time_s=watch.time_s,
        looking_s=judge.looking_s,
        earlier_s=training.earlier_s,
        operators=training.verified(),
    )


@contextlib.contextmanager
def _caches_of_its_own() -> Iterator[None]:
    """What torch.compile keeps on disk would make every run but the first shorter."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="leanmark-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name, None)
            if before is not None:
                os.environ[name] = before


class _Judge:
    """Looks at the quality of a model; ``found`` is what it was, in that order."""

    def __init__(self, held_out: Split, metric: str, wanted: float, device: Accelerator) -> None:
        self.found: list[float] = []
        self.looking_s = 0.0
        self._inputs, self._targets = held_out.inputs.to(device.name), held_out.targets.numpy()
        self._metric, self._wanted, self._device = metric, wanted, device

    def enough(self, model: nn.Module) -> bool:
        self._device.synchronize()  # steps that it is behind with are no part of looking
        began = time.perf_counter()
        found = outputs(model.eval(), self._inputs)
        self._device.synchronize()
        quality = fidelity.held_out(found.numpy(), self._targets)
        self.found.append(quality)
        self.looking_s += time.perf_counter() - began
        if not math.isfinite(quality):
            raise Implausible(
                f"its {self._metric} was {quality} after epoch {len(self.found)}: training diverged"
            )
        return quality >= self._wanted


class _Training:
    """All training of one run. ``longest`` is how many epochs the last of it may take."""

    def __init__(
        self,
        workload: Workload,
        techniques: Sequence[Technique],
        seed: int,
        judge: _Judge,
        device: Accelerator,
    ) -> None:
        self.longest = 1
        self.steps = 0
        self.earlier_s = 0.0
        self._workload, self._techniques, self._judge = workload, techniques, judge
        self._seed, self._device = seed, device
        self._last = False
        self._acting: list[Technique] = []
        self._changes: list[tuple[Technique, nn.Module, nn.Module]] = []
        self._step: Callable[[], None] = lambda: None
        self._ran_on: set[str] = set()

    def play(self, recipe: Recipe) -> None:
        """Train by ``recipe`` when the first technique wants a trained model, or at the end."""
        began = time.perf_counter()
        data = self._workload.dataset().train
        model = self._workload.model(self._seed)
        place = next((n for n, one in enumerate(self._techniques) if one.retrains), len(self._techniques))
        for technique in self._techniques[:place]:
            model = self._apply(technique, model)
        self._last = place == len(self._techniques)
        self.train(model, data, recipe, self._workload.loss)
        for number, technique in enumerate(self._techniques[place:], place + 1):
            self._last = number == len(self._techniques)
            self.earlier_s = time.perf_counter() - began
            model = self._apply(technique, model)
        if not self._judge.found:  # the technique has a training loop of its own, which nobody looks into
            if self._device.queues:
                raise Unsupported("it has a training loop of its own, which is on the processor")
            self._judge.enough(model)

    def train(self, model: nn.Module, split: Split, recipe: Recipe, loss: Loss) -> None:
        """As ``workloads.training.train``, with the techniques so far acting on each step."""
        # what acts on a step may change the module itself, and the next technique is to find it unchanged
        elsewhere = self._device.queues
        working = copy.deepcopy(model).to(self._device.name) if self._acting or elsewhere else model
        split = Split(inputs=split.inputs.to(self._device.name), targets=split.targets.to(self._device.name))
        enough = self._judge.enough if self._last else lambda model: False
        deployed: list[TorchStep] = []

        def deploy(step: TorchStep) -> TorchStep:
            for technique in self._acting:
                step = technique.deploy(step)
            if step.recorded:
                raise Unsupported("a recorded step replays the one batch it was recorded with")
            if elsewhere:
                float32.multiply(step.float32)
            deployed.append(step)
            return step

        train(working, split, recipe, loss, enough, deploy)
        if working is not model:
            model.load_state_dict(working.state_dict())
            model.eval()
        epochs = recipe.epochs
        if self._last:
            self.longest, epochs = epochs, len(self._judge.found)
        self.steps += training_steps(len(split.inputs), replace(recipe, epochs=epochs))
        [step] = deployed
        self._ran_on = {tensor.device.type for tensor in (*step.module.parameters(), step.inputs)}
        self._step = lambda: _once(step, split, recipe, loss)

    def verified(self) -> dict[str, int]:
        """The operators of one more step of the last training; the run is over, and its model of no more use.

        Raises:
            TookNoEffect: a technique is not in the model, or did not act on that step, or that was elsewhere.
        """
        where = "+".join(sorted(self._ran_on))
        if where != self._device.name:
            raise TookNoEffect(f"it trained on {where}, not on {self._device.name}")
        for technique, before, after in self._changes:
            technique.verify(before, after)
        ran = operators(self._step)
        if self._device.queues:
            ran = float32.named(ran, float32.observed(self._device.name))
        executed = Executed(operators=ran, threads=torch.get_num_threads(), device=where)
        for technique in self._techniques:
            technique.verify_executed(executed)
        if not any(technique.lowers_precision for technique in self._techniques):
            fidelity.check_float32(ran)
        return ran

    def _apply(self, technique: Technique, model: nn.Module) -> nn.Module:
        first = self._changes[0][1] if self._changes else model
        context = Context(
            workload=self._workload,
            baseline=first,
            seed=self._seed,
            device=self._device.name,
            trainer=self.train,
        )
        changed = technique.apply(model, context)
        self._changes.append((technique, model, changed))
        if not technique.retrains:
            self._acting.append(technique)
        return changed


def _once(step: TorchStep, split: Split, recipe: Recipe, loss: Loss) -> None:
    assert step.optimizer is not None, "training begins with an optimizer"
    step.module.train()
    step.optimizer.zero_grad(set_to_none=True)
    loss(step.module(step.inputs[: recipe.batch]), split.targets[: recipe.batch]).backward()
    step.optimizer.step()
