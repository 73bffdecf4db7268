"""The modules that lower precision leaves behind; what they change ends with their forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """Run ``module`` under autocast to ``dtype``; inputs and outputs stay float32 [N, ...]."""

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, self.dtype):
            outputs: Tensor = self.module(inputs)
        return outputs.float()


class Rounded(nn.Module):
    """``module`` with weights in ``dtype``: floating inputs are converted to it, outputs back to float32."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module.to(dtype), dtype

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.module(inputs.to(self.dtype) if inputs.is_floating_point() else inputs)
        return outputs.float()
