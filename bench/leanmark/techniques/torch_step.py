"""One step of torch on its device, as techniques find it and leave it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.optim import Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchStep:
    """``inputs`` [batch, ...] are what ``module`` steps on; ``optimizer`` is ``None`` in inference.

    ``scaler`` scales the loss, ``float32`` says in which format tensor cores may multiply float32,
    ``recorded`` whether the step is replayed from a recording, and ``fixed_batch`` whether the module is
    made for this batch size alone.
    """

    module: nn.Module
    inputs: Tensor
    optimizer: Optimizer | None = None
    scaler: GradScaler | None = None
    float32: Literal["ieee", "tf32"] = "ieee"
    recorded: bool = False
    fixed_batch: bool = False

    @property
    def device(self) -> str:
        return self.inputs.device.type
