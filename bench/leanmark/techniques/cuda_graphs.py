"""CUDA graphs: all launches of a step in one, so that the host no longer limits short steps."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep


@dataclass(frozen=True, slots=True)
class CudaGraphs(Technique):
    """Record the whole step once and replay it: in training the update of the weights too."""

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    repacks: ClassVar[bool] = True  # it leaves weights as they are, packed ones too
    tolerance: ClassVar[float] = 1e-3
    refusal: ClassVar[str] = "CUDA graphs record the launches of eager PyTorch on NVIDIA GPUs"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}  # it is recorded where it runs: verify_executed looks there

    def deploy(self, step: TorchStep) -> TorchStep:
        if step.device not in self.devices:
            raise Unsupported(self.refusal)
        if step.scaler is not None:
            raise Unsupported("a scaled loss is read by the host in every step, which cannot be recorded")
        if step.optimizer is not None:
            for group in step.optimizer.param_groups:
                if "capturable" in group:
                    group["capturable"] = True  # before its first step: its counters live on the device
        return replace(step, recorded=True)

    def verify_executed(self, executed: Executed) -> None:
        from leanmark.backends.recorded import REPLAYED

        if REPLAYED not in executed.operators:
            raise TookNoEffect("the step was not replayed from a recording")
