"""A step of PyTorch on the device: an inference or a training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanmark.backends import float32
from leanmark.backends.base import Array, Executable, Work
from leanmark.backends.profiled import operators
from leanmark.backends.storage import held_bytes
from leanmark.machine.counters import Counted
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.techniques.torch_step import TorchStep

if TYPE_CHECKING:
    from torch import Tensor, nn


class TorchExecutable(Executable):
    """A module of its own, loaded from the artifact, and the inputs of its step."""

    def __init__(self, artifact: Artifact, work: Work) -> None:
        import torch

        self._artifact = artifact
        self._device = work.device
        module = artifact.load_module().to(work.device)
        inputs = torch.from_numpy(work.inputs).to(work.device)
        step = self._begin(TorchStep(module=module, inputs=inputs), work)
        for technique in work.techniques:
            step = technique.deploy(step)
        if work.device == "cuda":
            float32.multiply(step.float32)
        self.prepared = step
        self._module, self._inputs = step.module, step.inputs

    def _begin(self, step: TorchStep, work: Work) -> TorchStep:
        """What is deployed on."""
        return step

    def outputs(self) -> Tensor | None:
        """The outputs of one inference; ``None`` in training, where every step has others."""
        return None

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        import torch

        from leanmark.workloads.training import outputs

        batch = len(self._inputs) if self.prepared.fixed_batch else len(inputs)
        found = outputs(self._unchanged(), torch.from_numpy(_padded(inputs, batch)).to(self._device), batch)
        result: NDArray[np.float32] = found.numpy()[: len(inputs)]
        return result

    def executed(self) -> Executed:
        import torch

        made = self.outputs()
        tensors = [*self._module.parameters(), *self._module.buffers(), self._inputs]
        devices = {tensor.device.type for tensor in (*tensors, *([] if made is None else [made]))}
        ran = operators(self.step)
        if self._device == "cuda":
            ran = float32.named(ran, float32.observed())
        return Executed(operators=ran, threads=torch.get_num_threads(), device="+".join(sorted(devices)))

    def memory_parts(self) -> Mapping[str, int]:
        return {"weights": held_bytes([*self._module.parameters(), *self._module.buffers()])}

    def counted(self) -> Counted:
        from leanmark.models.operators import counted

        return counted(self.step)

    def _unchanged(self) -> nn.Module:
        return self._module


class Inference(TorchExecutable):
    def __init__(self, artifact: Artifact, work: Work) -> None:
        import torch

        super().__init__(artifact, work)
        self._inference_mode = torch.inference_mode

    def step(self) -> None:
        with self._inference_mode():
            self._module(self._inputs)

    def outputs(self) -> Tensor:
        with self._inference_mode():
            found: Tensor = self._module(self._inputs)
        return found


class Training(TorchExecutable):
    def __init__(self, artifact: Artifact, work: Work) -> None:
        import torch

        super().__init__(artifact, work)
        if work.workload is None or work.targets is None:
            raise ValueError("a training step needs the workload and targets")
        self._targets: Tensor = torch.from_numpy(work.targets).to(work.device)
        self._loss = work.workload.loss
        assert self.prepared.optimizer is not None, "training begins with an optimizer"
        self._optimizer = self.prepared.optimizer
        self._scaler = self.prepared.scaler
        if self._scaler is not None:
            self.step = self._scaled_step  # type: ignore[method-assign]

    def _begin(self, step: TorchStep, work: Work) -> TorchStep:
        if work.workload is None:
            raise ValueError("a training step needs the workload and targets")
        step.module.train()
        return replace(step, optimizer=work.workload.optimizer(step.module.parameters()))

    def step(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        error = self._loss(self._module(self._inputs), self._targets)
        error.backward()
        self._optimizer.step()

    def _scaled_step(self) -> None:
        assert self._scaler is not None, "only a scaled step is this one"
        self._optimizer.zero_grad(set_to_none=True)
        error = self._loss(self._module(self._inputs), self._targets)
        self._scaler.scale(error).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def memory_parts(self) -> Mapping[str, int]:
        import torch

        parameters = list(self._module.parameters())
        weights = super().memory_parts()
        saved: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._optimizer.zero_grad(set_to_none=True)
            error = self._loss(self._module(self._inputs), self._targets)
        error.backward()
        held = [*parameters, *self._module.buffers(), self._inputs, self._targets]
        states = [value for state in self._optimizer.state.values() for value in state.values()]
        return {
            **weights,
            "gradients": held_bytes([one.grad for one in parameters if one.grad is not None]),
            "optimizer_state": held_bytes([one for one in states if isinstance(one, torch.Tensor)]),
            "activations": held_bytes(saved, besides=held),
        }

    def _unchanged(self) -> nn.Module:
        # read again rather than kept: a second copy would count as memory of the training
        return self._artifact.load_module().to(self._device)


def _padded(inputs: Array, batch: int) -> Array:
    """``inputs`` and as many of them again as make whole batches."""
    rows = -(-len(inputs) // batch) * batch
    return inputs[np.arange(rows) % len(inputs)]
