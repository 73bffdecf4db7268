"""Structured pruning: whole channels, hidden units and attention dimensions go, then fine-tuning."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Prune(Technique):
    """Remove the share ``ratio`` of every hidden layer's width, by group L2 norm, and fine-tune.

    Widths stay multiples of ``round_to`` and never fall below it: kernels are slow on odd widths.
    Parameters fall roughly with the square of the width that is left. Layers in front of a recurrent
    layer and layers that make the model's output keep their width.
    """

    ratio: float = 0.5
    round_to: int = 8

    packages: ClassVar[tuple[str, ...]] = ("torch", "torch_pruning")
    retrains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.ratio < 1.0:
            raise ValueError(f"ratio must lie between 0 and 1, not {self.ratio}")
        if self.round_to < 1:
            raise ValueError(f"round_to must be at least 1, not {self.round_to}")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        pruned = copy.deepcopy(model)
        split = context.workload.dataset().train
        self._remove_units(pruned, split.inputs[:2])
        finetune = context.workload.finetune
        recipe = dataclasses.replace(finetune, seed=finetune.seed + context.seed)
        context.train(pruned, split, recipe, context.workload.loss)
        return pruned

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        old, new = widths(before), widths(after)
        if old.keys() != new.keys():
            raise TookNoEffect("pruning must keep every layer, but the layers' names differ")
        narrower = {name: f"{old[name]} -> {new[name]}" for name in old if new[name] < old[name]}
        parameters = [sum(p.numel() for p in model.parameters()) for model in (before, after)]
        if not narrower or parameters[1] >= parameters[0]:
            raise TookNoEffect(
                f"no layer became narrower: {parameters[0]} parameters before, {parameters[1]} after"
            )
        return {
            "widths": narrower,
            "unchanged": [name for name in old if new[name] == old[name]],
            "parameters_before": parameters[0],
            "parameters_after": parameters[1],
        }

    def kept(self, width: int, step: int = 1) -> int:
        """How many of ``width`` channels stay: the nearest multiple of round_to and ``step`` above 0."""
        multiple = math.lcm(self.round_to, step)
        nearest = int(width * (1.0 - self.ratio) / multiple + 0.5) * multiple
        return min(width, max(multiple, nearest))

    def _remove_units(self, model: nn.Module, example: Tensor) -> None:
        """Shrink ``model`` in place and prove that it still runs."""
        import torch

        from leanmark.techniques.depgraph import prune_channels
        from leanmark.techniques.rnn_shrink import shrink_all

        model.eval()
        with torch.no_grad():
            expected = model(example).shape
        shrunk = shrink_all(model, example, self.kept)
        try:
            changed = prune_channels(model, example, self.kept) or shrunk
            with torch.no_grad():
                found = model(example).shape
        except (AssertionError, IndexError, RuntimeError) as error:
            raise Unsupported(f"torch-pruning cannot prune {type(model).__name__}: {error}") from error
        if found != expected:
            raise Unsupported(f"pruning changes the model's output from {expected} to {found}")
        if not changed:
            raise Unsupported(
                f"{type(model).__name__} has no hidden layer wide enough to prune at ratio {self.ratio} "
                f"in multiples of {self.round_to}"
            )


def widths(model: nn.Module) -> dict[str, int]:
    """Output width of each layer with weights, read off the weights and not off what the layer claims."""
    from torch import nn

    found: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            found[name] = module.weight.shape[0]
        elif isinstance(module, nn.RNNBase):
            found[name] = module.get_parameter("weight_hh_l0").shape[1]
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            found[name] = module.weight.shape[1] * module.groups
        elif isinstance(module, nn.modules.conv._ConvNd):
            found[name] = module.weight.shape[0]
    return found
