"""bfloat16 mixed precision: matrix products and convolutions in bfloat16, weights and sums in float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.devices.cpu import Cpu
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Finding
from leanmark.techniques.base import Context, Technique
from leanmark.techniques.precision import check_heavy

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed


@dataclass(frozen=True, slots=True)
class Bf16(Technique):
    """Mixed precision (Micikevicius et al., ICLR 2018) by torch.autocast; no loss scaling is needed in bf16.

    Faster only where the processor multiplies bfloat16 itself (fact ``native_bf16``): elsewhere it is
    emulated and several times slower than float32.
    """

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.05  # eight bits of mantissa: trained networks show 0.003 to 0.006
    refusal: ClassVar[str] = (
        "ONNX Runtime has no bfloat16 matrix product on CPUs, and leanmark runs OpenVINO in float32"
    )

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        from leanmark.techniques.autocast import Autocast

        wrapped = Autocast(copy.deepcopy(model)).eval()
        example = context.workload.dataset().train.inputs[:2]
        try:
            wrapped(example).sum().backward()
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise Unsupported(f"{type(model).__name__} does not run in bfloat16 here: {reason}") from error
        wrapped.zero_grad(set_to_none=True)
        return wrapped

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        from leanmark.techniques.autocast import Autocast

        if not isinstance(after, Autocast):
            raise TookNoEffect(f"{type(after).__name__} does not enter autocast")
        return {"native_bf16": _native_bf16()}

    def doubts(self, verified: Mapping[str, Any]) -> tuple[Finding, ...]:
        if verified["native_bf16"]:
            return ()
        message = "this processor has no bfloat16 instructions: they are emulated, so slower is expected"
        return (Finding(code="emulated-bf16", message=message),)

    def verify_executed(self, executed: Executed) -> None:
        check_heavy(executed, "bfloat16")


def _native_bf16() -> bool:
    """Whether the GPU, or else this processor, has bfloat16 instructions (AVX512_BF16, AMX, Arm BF16)."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return "bf16" in str(Cpu().describe()["instruction_sets"])
