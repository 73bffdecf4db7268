"""PyTorch, operator by operator: the backend every technique can be compared on."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from leanmark.backends.base import Array, Backend, Executable, Work
from leanmark.backends.recorded import Recorded
from leanmark.backends.torch_executable import Inference, Training
from leanmark.models.artifact import Artifact
from leanmark.record import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


class Eager(Backend):
    phases: ClassVar[tuple[Phase, ...]] = ("inference", "training")
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")

    def runtime_modules(self, phase: Phase) -> tuple[str, ...]:
        # the first optimizer imports torch._dynamo, which is most of what training adds
        return ("torch",) if phase == "inference" else ("torch", "torch._dynamo")

    def unavailable(self) -> str | None:
        found = importlib.util.find_spec("torch")
        return None if found else "PyTorch is not installed: pip install torch"

    def build(self, module: nn.Module, artifact: Artifact, example: Array) -> None:
        import torch

        torch.save(module.state_dict(), _state_file(artifact))

    def open(self, artifact: Artifact, work: Work) -> Executable:
        opened = (Training if work.phase == "training" else Inference)(artifact, work)
        return Recorded(opened, work.accelerator) if opened.prepared.recorded else opened

    def shipped_bytes(self, artifact: Artifact) -> int:
        """The file of weights, without the code that gives them their shape."""
        return _state_file(artifact).stat().st_size


def _state_file(artifact: Artifact) -> Path:
    return artifact.folder / "state.pt"
