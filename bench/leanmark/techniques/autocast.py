"""The module that bf16 leaves behind: a model that enters autocast for its own forward pass only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """Run ``module`` under bfloat16 autocast; inputs and outputs stay float32 [N, ...]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            outputs: Tensor = self.module(inputs)
        return outputs.float()
