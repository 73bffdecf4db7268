"""Training and running a model, the same way for every workload. Leaves the global seed alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from leanmark.errors import UsageError
from leanmark.techniques.torch_step import TorchStep
from leanmark.workloads.base import Recipe, Split

Loss = Callable[[Tensor, Tensor], Tensor]

_CHUNK = 256


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from ``seed`` inside; on the CPU from where they were afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    loss: Loss,
    enough: Callable[[nn.Module], bool] = lambda model: False,
    deploy: Callable[[TorchStep], TorchStep] = lambda step: step,
) -> float:
    """Train ``model``, where it and ``split`` are, and leave it in evaluation mode; the last batch's loss.

    ``enough`` is asked about the model at the end of each epoch: was that the last? It may use it, in either
    mode, but draw no random numbers. ``deploy`` changes the step, of which it sees all inputs at once.

    Adam (Kingma & Ba, 2015) under a one-cycle learning rate (Smith & Topin, 2017). Equal arguments give
    equal weights on one machine and thread count.
    """
    epochs = list(_epochs(len(split.inputs), recipe))
    optimizer: torch.optim.Optimizer = torch.optim.Adam(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    step = deploy(TorchStep(module=model, inputs=split.inputs, optimizer=optimizer))
    optimizer = step.optimizer or optimizer
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=sum(map(len, epochs)) + 1
    )
    with seeded(recipe.seed), torch.enable_grad():
        for batches in epochs:
            step.module.train()
            for batch in batches:
                optimizer.zero_grad(set_to_none=True)
                error = loss(step.module(step.inputs[batch]), split.targets[batch])
                if step.scaler is None:
                    error.backward()
                    optimizer.step()
                else:
                    step.scaler.scale(error).backward()
                    step.scaler.step(optimizer)
                    step.scaler.update()
                schedule.step()
            if enough(model):
                break
    model.eval()
    return error.item()


def training_steps(count: int, recipe: Recipe) -> int:
    """How many steps ``train`` takes on ``count`` samples."""
    return sum(map(len, _epochs(count, recipe)))


def outputs(model: nn.Module, inputs: Tensor, batch: int = _CHUNK) -> Tensor:
    """What ``model`` (in evaluation mode) says to ``inputs`` [N, ...]: float32 [N, ...] on the CPU.

    At most ``batch`` and 256 inputs go in at once.

    Raises:
        UsageError: the model returns something else than one tensor with a row per input.
    """
    found = []
    with torch.inference_mode():
        for chunk in inputs.split(min(batch, _CHUNK)):
            result = model(chunk)
            if not isinstance(result, Tensor) or result.shape[:1] != chunk.shape[:1]:
                raise UsageError(
                    f"{type(model).__name__} must return one tensor with a row per input, "
                    f"not {_describe(result)} for inputs of shape {tuple(chunk.shape)}"
                )
            found.append(result.float().cpu())
    # joined outside: what inference mode makes cannot take part in training, as a teacher's outputs do
    return torch.cat(found)


def _epochs(count: int, recipe: Recipe) -> Iterator[list[Tensor]]:
    """Indices of the batches of every epoch; a last batch of one is left out (batch norm needs two)."""
    generator = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.epochs):
        batches = torch.randperm(count, generator=generator).split(recipe.batch)
        yield [batch for batch in batches if len(batch) > 1 or count == 1]


def _describe(result: object) -> str:
    if isinstance(result, Tensor):
        return f"a tensor of shape {tuple(result.shape)}"
    return f"a {type(result).__name__}"
