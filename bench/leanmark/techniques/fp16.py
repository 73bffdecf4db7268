"""float16 mixed precision: products in float16, weights in float32, the loss scaled while training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.techniques.base import Context, Technique
from leanmark.techniques.precision import check_heavy

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep


@dataclass(frozen=True, slots=True)
class Fp16(Technique):
    """Mixed precision with loss scaling (Micikevicius et al., ICLR 2018): torch.autocast and GradScaler.

    Five bits of exponent: gradients below 6e-8 would vanish without the scale.
    """

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.01
    refusal: ClassVar[str] = "float16 is emulated on processors, and only PyTorch has autocast"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}  # it is entered where it is fast, not where models are prepared: see verify_executed

    def deploy(self, step: TorchStep) -> TorchStep:
        import torch
        from torch.amp import GradScaler

        from leanmark.techniques.autocast import Autocast

        module = Autocast(step.module, torch.float16)
        if step.optimizer is None:
            return replace(step, module=module.eval())
        return replace(step, module=module, scaler=GradScaler(step.device))

    def verify_executed(self, executed: Executed) -> None:
        check_heavy(executed, "float16")
