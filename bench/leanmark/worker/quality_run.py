"""One training run to a quality target, from the first weights, in a process of its own.

After MLPerf Training ("time to train"; Mattson et al., MLSys 2020): the clock runs until the quality on data
held out first reaches the target, looked at when an epoch ends; looking is part of the run. The recipe stays
as it is, its learning rate included, so what a run can reach is what the recipe reaches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from leanmark.errors import Implausible, Unsupported
from leanmark.models import fidelity
from leanmark.protocol.messages import Notice, Trained
from leanmark.worker.prepare import Stopwatch
from leanmark.workloads.base import Workload
from leanmark.workloads.training import outputs, train, training_steps


def run(workload: Workload, target: float | None, seed: int, tell: Callable[[Notice], None]) -> Trained:
    """Train until ``target`` (``None``: the workload's own) is reached, or the recipe ends.

    ``seed`` is added to the recipe's: it shuffles the samples. The first weights are those of ``model()``.

    Raises:
        Unsupported: there is no recipe, no target, or no quality that is known without another model.
        Implausible: the quality became NaN or infinite.
    """
    if workload.recipe is None:
        raise Unsupported(f"{type(workload).__name__} comes trained: there is no recipe to train it by")
    wanted = workload.target if target is None else target
    if wanted is None:
        raise Unsupported(f"{type(workload).__name__} states no target of its own: give one")
    recipe = replace(workload.recipe, seed=workload.recipe.seed + seed)
    data = workload.dataset()
    targets = data.test.targets.numpy()
    metric = fidelity.metric(targets)  # refused before it is trained, not after
    found: list[float] = []
    looking_s = 0.0

    def reached() -> bool:
        nonlocal looking_s
        began = time.perf_counter()
        found.append(fidelity.held_out(outputs(module.eval(), data.test.inputs).numpy(), targets))
        looking_s += time.perf_counter() - began
        if not math.isfinite(found[-1]):
            raise Implausible(f"its {metric} was {found[-1]} after epoch {len(found)}: training diverged")
        return found[-1] >= wanted

    watch = Stopwatch(tell)
    with watch:
        module = workload.model()
        train(module, data.train, recipe, workload.loss, reached)
    return Trained(
        metric=metric,
        target=wanted,
        reached=found[-1] >= wanted,
        qualities=tuple(found),
        epochs=len(found),
        longest=recipe.epochs,
        steps=training_steps(len(data.train.inputs), replace(recipe, epochs=len(found))),
        time_s=watch.time_s,
        looking_s=looking_s,
    )
