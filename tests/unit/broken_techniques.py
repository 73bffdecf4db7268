"""Techniques that claim what they do not do: what each must be caught by is in the tests beside."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leanmark.techniques.base import Context
from leanmark.techniques.bf16 import Bf16
from leanmark.techniques.int8 import Int8
from leanmark.techniques.prune import Prune

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class AutocastNotEntered(Bf16):
    """Claims bfloat16; the wrapper is there and calls the model in float32."""

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        from leanmark.techniques.autocast import Autocast

        wrapped = Autocast(copy.deepcopy(model)).eval()
        wrapped.forward = wrapped.module.forward  # type: ignore[method-assign]
        return wrapped


@dataclass(frozen=True, slots=True)
class MaskOnly(Prune):
    """Claims structured pruning; the weights are zero and as many as before."""

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        import torch

        masked = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in masked.parameters():
                parameter[: int(len(parameter) * self.ratio)] = 0.0
        return masked


@dataclass(frozen=True, slots=True)
class Int8CopiesGraph(Int8):
    """Claims int8; the graph is the one that came in."""

    def apply_graph(self, source: Path, target: Path, context: Context) -> None:
        shutil.copyfile(source, target)
