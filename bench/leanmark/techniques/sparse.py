"""Unstructured and 4x1-block sparsity with operators that skip the zeros."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context
from leanmark.techniques.repacked import Repacked

if TYPE_CHECKING:
    from torch import Tensor, nn

_SQUARE = (64, 128)


@dataclass(frozen=True, slots=True)
class Sparse(Repacked):
    """The share ``p`` of the weights of each layer becomes zero, the smallest first; then fine-tuning.

    ``block`` is 1 for any pattern (Han et al., NeurIPS 2015), 4 where four consecutive outputs are zero
    together, or 64 or 128 for square blocks of linear layers whose sides are multiples of it, all that GPUs
    skip. A layer goes to the sparse operator where that is faster than the fastest dense one, ours included.
    Depthwise and grouped convolutions stay dense.
    """

    p: float = 0.8
    block: int = 1

    retrains: ClassVar[bool] = True
    weights: ClassVar[str] = "sparse"
    lowers_precision: ClassVar[bool] = True  # its places are bytes, and the profiler calls them a dtype
    proof: ClassVar[str] = "leanmark::sparse_"
    gpu_proof: ClassVar[str] = "leanmark_kernels::block_sparse_linear["

    def __post_init__(self) -> None:
        if not 0.0 < self.p < 1.0:
            raise ValueError(f"p must lie between 0 and 1, not {self.p}")
        if self.block not in (1, 4, *_SQUARE):
            raise ValueError(f"block must be 1, 4, 64 or 128, not {self.block}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        from leanmark.techniques.masked import masked

        if context.device == "cuda" and self.block not in _SQUARE:
            raise Unsupported("GPUs skip square blocks only: sparse(block=64), or 128")
        pruned = copy.deepcopy(model)
        masks = {
            (layer, name): _mask(getattr(layer, name).detach(), self.p, self.block)
            for layer, name in _weights(pruned, self.block)
        }
        split, finetune = context.workload.dataset().train, context.workload.finetune
        recipe = dataclasses.replace(finetune, seed=finetune.seed + context.seed)
        with masked(masks):
            context.train(pruned, split, recipe, context.workload.loss)
        return self.placed(pruned, split.inputs[: self.batch], context.device)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        from leanmark_kernels.convert.rows import LEAST_ZEROS

        facts = Repacked.verify(self, before, after)
        skipped = {
            name: one.sparsity for name, one in after.named_modules() if hasattr(type(one), "sparsity")
        }
        dense = [name for name, share in skipped.items() if share < LEAST_ZEROS]
        if not skipped or dense:
            raise TookNoEffect(f"these layers skip no zeros: {', '.join(dense) or 'all'}")
        return {**facts, "skipped_share": skipped}


def _weights(model: nn.Module, block: int) -> Iterator[tuple[nn.Module, str]]:
    """The weights that are pruned: of which module, and their name in it."""
    from torch import nn

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and block not in _SQUARE:
            yield layer, "weight"
        elif isinstance(layer, nn.Linear | nn.MultiheadAttention):
            name = "weight" if isinstance(layer, nn.Linear) else "in_proj_weight"
            weight = getattr(layer, name)
            if weight is not None and not (block in _SQUARE and any(side % block for side in weight.shape)):
                yield layer, name


def _mask(weight: Tensor, share: float, block: int) -> Tensor:
    """1 where a weight stays. Blocks of outputs [N, ...] are weighed by their L2 norm; a last, shorter one
    with zeros in the place of what it lacks. Square ones are of [N, K]."""
    from torch.nn import functional as F

    if block in _SQUARE:
        norms = weight.unflatten(1, (-1, block)).unflatten(0, (-1, block)).norm(dim=(1, 3))
        return _mask(norms, share, 1).repeat_interleave(block, 0).repeat_interleave(block, 1)
    outputs = weight.flatten(1)
    filled = F.pad(outputs, (0, 0, 0, -outputs.shape[0] % block)).unflatten(0, (-1, block))
    scores = filled.norm(dim=1)
    removed = round(share * scores.numel())
    threshold = scores.flatten().kthvalue(removed).values if removed else scores.new_tensor(-1.0)
    kept = (scores > threshold)[:, None].expand_as(filled).flatten(0, 1)[: outputs.shape[0]]
    mask: Tensor = kept.reshape(weight.shape).to(weight.dtype)
    return mask
