"""Gradient checkpointing: activations are computed again in the backward pass instead of kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Phase
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep


@dataclass(frozen=True, slots=True)
class Checkpointing(Technique):
    """One checkpoint at each block of the largest stack of blocks (Chen et al., 2016, arXiv:1604.06174)."""

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    phases: ClassVar[tuple[Phase, ...]] = ("training",)
    tolerance: ClassVar[float] = 1e-3
    refusal: ClassVar[str] = "only training, in eager PyTorch, keeps activations"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        if not blocks(model):
            raise Unsupported(f"{type(model).__name__} has no stack of several blocks to recompute")
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {"checkpoints": len(blocks(after))}

    def deploy(self, step: TorchStep) -> TorchStep:
        for block in blocks(step.module):
            block.forward = _recomputed(block.forward)
        return step

    def verify_executed(self, executed: Executed) -> None:
        from leanmark.backends.profiled import RECOMPUTED

        if RECOMPUTED not in executed.operators:
            raise TookNoEffect("nothing was computed again in the backward pass")


def blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the stack that holds the most parameters in two or more members with weights."""
    from torch import nn

    stacks = [one for one in model.modules() if isinstance(one, nn.Sequential | nn.ModuleList)]
    members = [[each for each in one if any(True for _ in each.parameters())] for one in stacks]
    several = [found for found in members if len(found) > 1]
    return max(several, key=_parameters, default=[])


def _parameters(members: list[nn.Module]) -> int:
    return sum(one.numel() for member in members for one in member.parameters())


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` whose insides are forgotten, and made again with a mark when they are needed."""
    import torch
    from torch.profiler import record_function
    from torch.utils.checkpoint import checkpoint

    from leanmark.backends.profiled import RECOMPUTED

    def marked(*args: Any, **kwargs: Any) -> Any:
        if torch._C._current_graph_task_id() == -1:  # not in a backward pass
            return forward(*args, **kwargs)
        with record_function(RECOMPUTED):
            return forward(*args, **kwargs)

    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(marked, *args, use_reentrant=False, **kwargs)

    return checkpointed
