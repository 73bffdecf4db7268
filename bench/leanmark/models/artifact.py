"""A prepared model on disk: what `prepare` writes and every measuring process reads.

Layout of an artifact folder::

    module.pt       the changed nn.Module (absent for a model that lives only as a graph)
    model.onnx      the graph that ONNX Runtime and OpenVINO run (where they were asked for)
    outputs.npy     the module's float outputs on the test inputs (absent for a graph)
    facts.json      ModelFacts per backend, the cost of the technique, what verify() found

Layout of a workload's folder, above its artifacts::

    samples.npz     test inputs and targets; training inputs and targets of one batch to step on

The files are this run's own and are unpickled only by the processes of the same run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Artifact:
    """The folder of one technique chain applied to one workload."""

    folder: Path

    @classmethod
    def of(cls, workload_folder: Path, technique: str) -> Artifact:
        """The artifact of a chain, in a folder whose name any file system takes."""
        return cls(workload_folder / re.sub(r"[^\w.+=-]", "_", technique))

    @property
    def module_file(self) -> Path:
        return self.folder / "module.pt"

    @property
    def graph_file(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def facts_file(self) -> Path:
        return self.folder / "facts.json"

    @property
    def outputs_file(self) -> Path:
        return self.folder / "outputs.npy"

    def load_outputs(self) -> NDArray[np.float32]:
        """Float outputs [N, ...] of this module on the test inputs."""
        outputs: NDArray[np.float32] = np.load(self.outputs_file)
        return outputs

    def save_module(self, module: nn.Module) -> None:
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(module, self.module_file)

    def load_module(self) -> nn.Module:
        """The changed module, in evaluation mode, on the CPU."""
        import torch

        # weights_only=False: the file is this run's own, and a pruned module has no class to rebuild from
        module: nn.Module = torch.load(self.module_file, weights_only=False)
        return module.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Real data as arrays, so that a measuring process needs neither data set nor torch.

    ``test_*`` are the whole test split [N, ...]; ``batch_*`` some training samples to step on.
    """

    test_inputs: Array
    test_targets: Array
    batch_inputs: Array
    batch_targets: Array

    @classmethod
    def load(cls, workload_folder: Path) -> Samples:
        with np.load(workload_folder / "samples.npz") as arrays:
            return cls(**{name: arrays[name] for name in cls.__slots__})

    def save(self, workload_folder: Path) -> None:
        workload_folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self, name) for name in self.__slots__}
        np.savez(workload_folder / "samples.npz", **arrays)
