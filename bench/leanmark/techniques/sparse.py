"""Unstructured and 4x1-block sparsity with operators that skip the zeros."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect
from leanmark.techniques.base import Context
from leanmark.techniques.repacked import Repacked

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Sparse(Repacked):
    """The share ``p`` of the weights of each layer becomes zero, the smallest first; then fine-tuning.

    ``block`` is 1 for any pattern (Han et al., NeurIPS 2015), or 4 where four consecutive outputs are zero
    together. A layer goes to the sparse operator where that is faster than the fastest dense one, ours
    included. Depthwise and grouped convolutions stay dense.
    """

    p: float = 0.8
    block: int = 1

    retrains: ClassVar[bool] = True
    weights: ClassVar[str] = "sparse"
    lowers_precision: ClassVar[bool] = True  # its places are bytes, and the profiler calls them a dtype
    proof: ClassVar[str] = "leanmark::sparse_"

    def __post_init__(self) -> None:
        if not 0.0 < self.p < 1.0:
            raise ValueError(f"p must lie between 0 and 1, not {self.p}")
        if self.block not in (1, 4):
            raise ValueError(f"block must be 1 or 4, not {self.block}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        from torch.nn.utils import prune as masks

        from leanmark.workloads.training import train

        pruned = copy.deepcopy(model)
        for layer in _layers(pruned):
            masks.custom_from_mask(layer, "weight", _mask(layer.weight.detach(), self.p, self.block))
        split, finetune = context.workload.dataset().train, context.workload.finetune
        recipe = dataclasses.replace(finetune, seed=finetune.seed + context.seed)
        train(pruned, split, recipe, context.workload.loss)
        for layer in _layers(pruned):
            masks.remove(layer, "weight")
        return self.repack(pruned, split.inputs[: self.batch])

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        from leanmark_kernels.convert.rows import LEAST_ZEROS
        from leanmark_kernels.sparse_modules import SparseModule

        facts = Repacked.verify(self, before, after)
        skipped = {name: one.sparsity for name, one in after.named_modules() if isinstance(one, SparseModule)}
        dense = [name for name, share in skipped.items() if share < LEAST_ZEROS]
        if not skipped or dense:
            raise TookNoEffect(f"these layers skip no zeros: {', '.join(dense) or 'all'}")
        return {**facts, "skipped_share": skipped}


def _layers(model: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    from torch import nn

    for layer in model.modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            yield layer


def _mask(weight: Tensor, share: float, block: int) -> Tensor:
    """1 where a weight stays. Blocks of outputs [N, ...] are weighed by their L2 norm; a last, shorter one
    with zeros in the place of what it lacks."""
    from torch.nn import functional as F

    outputs = weight.flatten(1)
    filled = F.pad(outputs, (0, 0, 0, -outputs.shape[0] % block)).unflatten(0, (-1, block))
    scores = filled.norm(dim=1)
    removed = round(share * scores.numel())
    threshold = scores.flatten().kthvalue(removed).values if removed else scores.new_tensor(-1.0)
    kept = (scores > threshold)[:, None].expand_as(filled).flatten(0, 1)[: outputs.shape[0]]
    mask: Tensor = kept.reshape(weight.shape).to(weight.dtype)
    return mask
