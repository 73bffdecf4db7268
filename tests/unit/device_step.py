"""Runs one technique the way a worker does: apply, verify, save, open on a device, step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from leanmark.backends.base import Executable, Work
from leanmark.backends.eager import Eager
from leanmark.devices.base import Accelerator
from leanmark.models.artifact import Artifact
from leanmark.record import Phase
from leanmark.techniques.base import Context, Technique
from leanmark.workloads.base import Workload


@dataclass(frozen=True, slots=True)
class Bench:
    """``folder`` is where the changed model lies."""

    workload: Workload
    folder: Path

    def apply(self, *techniques: Technique) -> nn.Module:
        baseline = self.workload.model().eval()
        model = baseline
        for technique in techniques:
            after = technique.apply(model, Context(workload=self.workload, baseline=baseline))
            technique.verify(model, after)
            model = after
        return model

    def open(
        self, phase: Phase, batch: int, *techniques: Technique, accelerator: Accelerator | None = None
    ) -> Any:
        """The executable, as ``Any``: tests look inside."""
        artifact = Artifact(self.folder)
        artifact.save_module(self.apply(*techniques))
        split = self.workload.dataset().train
        rows = np.arange(batch) % len(split.inputs)
        work = Work(
            phase=phase,
            inputs=split.inputs.numpy()[rows],
            targets=split.targets.numpy()[rows],
            threads=1,
            device="cpu",
            workload=self.workload,
            techniques=techniques,
            accelerator=accelerator or Accelerator(),
        )
        return Eager().open(artifact, work)

    def error(self, executable: Executable) -> float:
        """Relative L2 error of the outputs on the test inputs against the unchanged model's."""
        from leanmark.workloads.training import outputs

        inputs = self.workload.dataset().test.inputs
        expected = outputs(self.workload.model().eval(), inputs).numpy()
        found = executable.predict(inputs.numpy())
        return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
