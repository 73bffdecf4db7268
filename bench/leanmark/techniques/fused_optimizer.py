"""The update of all weights in a few kernels instead of several for each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Phase
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep


@dataclass(frozen=True, slots=True)
class FusedOptimizer(Technique):
    """torch's own fused Adam, AdamW, SGD and Adagrad."""

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    phases: ClassVar[tuple[Phase, ...]] = ("training",)
    tolerance: ClassVar[float] = 1e-3
    refusal: ClassVar[str] = "an optimizer only works in training, in eager PyTorch"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}  # the optimizer is made where it runs: verify_executed looks there

    def deploy(self, step: TorchStep) -> TorchStep:
        if step.optimizer is None:
            raise Unsupported(self.refusal)
        kind: Any = type(step.optimizer)
        groups = [
            {name: value for name, value in group.items() if name not in ("fused", "foreach")}
            for group in step.optimizer.param_groups
        ]
        try:
            return replace(step, optimizer=kind(groups, fused=True))
        except (TypeError, RuntimeError) as error:
            raise Unsupported(f"{kind.__name__} has no fused version here: {error}") from error

    def verify_executed(self, executed: Executed) -> None:
        from leanmark.backends.profiled import FUSED_UPDATE

        if FUSED_UPDATE not in executed.operators:
            raise TookNoEffect("no fused update ran")
