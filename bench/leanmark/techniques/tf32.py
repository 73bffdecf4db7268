"""TF32: float32 whose products keep 10 bits of mantissa, on the tensor cores of Ampere and later."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import Unsupported
from leanmark.techniques.base import Context, Technique
from leanmark.techniques.precision import check_heavy

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep


@dataclass(frozen=True, slots=True)
class Tf32(Technique):
    """Weights, activations and sums stay float32 in memory: less arithmetic, as many bytes.

    The unchanged model multiplies in full float32, also its convolutions, which torch would do in TF32.
    """

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.01  # ten bits of mantissa, a quarter of bfloat16's error
    refusal: ClassVar[str] = "TF32 is a format of NVIDIA's tensor cores, used from eager PyTorch"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {}  # nothing of it is in the model: verify_executed looks at a product

    def deploy(self, step: TorchStep) -> TorchStep:
        if step.device not in self.devices:
            raise Unsupported(self.refusal)
        return replace(step, float32="tf32")

    def verify_executed(self, executed: Executed) -> None:
        check_heavy(executed, "tf32")
