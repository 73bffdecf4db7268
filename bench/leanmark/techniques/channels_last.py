"""Images with their channels innermost, as convolutions on tensor cores want them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from leanmark.techniques.torch_step import TorchStep


@dataclass(frozen=True, slots=True)
class ChannelsLast(Technique):
    """NHWC weights and inputs; the values are the same."""

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    tolerance: ClassVar[float] = 1e-3
    refusal: ClassVar[str] = "ONNX Runtime and OpenVINO choose their own layout"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        import torch

        if not _kernels(model):
            raise Unsupported(f"{type(model).__name__} has no convolution over images")
        changed: Any = copy.deepcopy(model)
        moved: nn.Module = changed.to(memory_format=torch.channels_last)  # its annotations know no formats
        return moved

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        import torch

        kernels = _kernels(after)
        left = [
            name for name, one in kernels.items() if not one.is_contiguous(memory_format=torch.channels_last)
        ]
        if left or not kernels:
            raise TookNoEffect(f"not channels last: {', '.join(left) or 'there is no convolution'}")
        return {"convolutions": len(kernels)}

    def deploy(self, step: TorchStep) -> TorchStep:
        import torch

        if step.inputs.dim() != 4:
            return step
        return replace(step, inputs=step.inputs.contiguous(memory_format=torch.channels_last))


def _kernels(model: nn.Module) -> dict[str, Any]:
    """The weights [D, C, H, W] of all convolutions by name."""
    from torch import nn

    return {name: one.weight for name, one in model.named_modules() if isinstance(one, nn.Conv2d)}
