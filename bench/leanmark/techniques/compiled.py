"""torch.compile: operators fused into kernels that are generated for this model and this batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from leanmark.errors import TookNoEffect
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@dataclass(frozen=True, slots=True)
class Compile(Technique):
    """TorchInductor (Ansel et al., "PyTorch 2", ASPLOS 2024), for one batch size.

    Compiling is in the cold start, not in the latency. Modes are torch's own.
    """

    mode: str = "default"

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    tolerance: ClassVar[float] = 1e-3
    refusal: ClassVar[str] = "only PyTorch runs the code that torch.compile makes"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, not {self.mode}")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {"mode": self.mode}  # it is compiled where it runs: verify_executed looks there

    def deploy(self, step: TorchStep) -> TorchStep:
        import torch

        if step.optimizer is None:  # what a model makes when first called, as caches, would break its graph
            with torch.inference_mode():
                step.module(step.inputs)
        # static shapes: a second, dynamic version, made for another batch, would be taken for this one too
        module = torch.compile(step.module, mode=self.mode, dynamic=False)
        return replace(step, module=cast("nn.Module", module), fixed_batch=True)

    def verify_executed(self, executed: Executed) -> None:
        from leanmark.backends.profiled import COMPILED

        if COMPILED not in executed.operators:
            raise TookNoEffect("nothing of the step ran as compiled code")
