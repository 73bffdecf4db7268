"""PyTorch, operator by operator: the backend every technique can be compared on."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from leanmark.backends.base import Array, Backend, Executable, Executed, Work
from leanmark.models.artifact import Artifact
from leanmark.record import Phase

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.autograd.profiler_util import FunctionEvent

_HEAVY = frozenset(
    {
        "mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "mv", "addmv", "dot", "_int_mm",
        "convolution", "convolution_backward", "mkldnn_rnn_layer", "mkldnn_rnn_layer_backward",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    }
)  # fmt: skip
"""The operators of torch in which a model spends its arithmetic on a CPU."""

_LIBRARY = frozenset({"aten", "prim", "prims", "autograd", "torch", "profiler"})
"""Namespaces of torch itself; an operator of any other was written to compute, so it is reported."""

_DTYPES = {
    "c10::BFloat16": "bfloat16",
    "c10::Half": "float16",
    "float": "float32",
    "double": "float64",
    "signed char": "int8",
    "unsigned char": "uint8",
}
"""The profiler's names of dtypes in torch's words."""


class Eager(Backend):
    phases: ClassVar[tuple[Phase, ...]] = ("inference", "training")

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
        if work.phase == "training":
            return _Training(artifact, work)
        return _Inference(artifact, work)

    def shipped_bytes(self, artifact: Artifact) -> int:
        """The file of weights, without the code that gives them their shape."""
        return _state_file(artifact).stat().st_size


class _Opened(Executable):
    """A module of its own, loaded from the artifact, and the inputs of its step."""

    def __init__(self, artifact: Artifact, work: Work) -> None:
        import torch

        self._artifact = artifact
        self._device = work.device
        self._module = artifact.load_module().to(work.device)
        self._inputs = torch.from_numpy(work.inputs).to(work.device)

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        import torch

        from leanmark.workloads.training import outputs

        found = outputs(self._unchanged(), torch.from_numpy(inputs).to(self._device))
        result: NDArray[np.float32] = found.numpy()
        return result

    def executed(self) -> Executed:
        import torch

        return Executed(
            operators=self._observe(),
            threads=torch.get_num_threads(),
            device=self._inputs.device.type,
        )

    def memory_parts(self) -> Mapping[str, int]:
        return {"weights": _bytes([*self._module.parameters(), *self._module.buffers()])}

    def _unchanged(self) -> nn.Module:
        return self._module

    def _observe(self) -> dict[str, int]:
        """Operators of one real step. A dispatch mode would switch autocast off below itself."""
        from torch.autograd import profiler

        with profiler.profile(use_kineto=True, record_shapes=True) as profile:
            self.step()
        return dict(Counter(_names(profile.function_events)))


class _Inference(_Opened):
    def __init__(self, artifact: Artifact, work: Work) -> None:
        import torch

        super().__init__(artifact, work)
        self._inference_mode = torch.inference_mode

    def step(self) -> None:
        with self._inference_mode():
            self._module(self._inputs)


class _Training(_Opened):
    def __init__(self, artifact: Artifact, work: Work) -> None:
        import torch

        super().__init__(artifact, work)
        if work.workload is None or work.targets is None:
            raise ValueError("a training step needs the workload and targets")
        self._targets: Tensor = torch.from_numpy(work.targets).to(work.device)
        self._loss = work.workload.loss
        self._optimizer = work.workload.optimizer(self._module.parameters())
        self._module.train()

    def step(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        error = self._loss(self._module(self._inputs), self._targets)
        error.backward()
        self._optimizer.step()

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
            "gradients": _bytes([one.grad for one in parameters if one.grad is not None]),
            "optimizer_state": _bytes([one for one in states if isinstance(one, torch.Tensor)]),
            "activations": _bytes(saved, besides=held),
        }

    def _unchanged(self) -> nn.Module:
        # read again rather than kept: a second copy would count as memory of the training
        return self._artifact.load_module().to(self._device)


def _bytes(tensors: Iterable[Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages behind ``tensors``, each counted once; views share theirs."""
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(size for pointer, size in storages.items() if pointer not in known)


def _names(events: Iterable[FunctionEvent]) -> Iterator[str]:
    """``addmm[float32]`` for each heavy operator that calls no other: autocast and fused ones do."""
    for event in events:
        if _is_heavy(event) and not any(_is_heavy(inner) for inner in _below(event)):
            dtypes = sorted(set(_matrix_dtypes(event)))
            yield f"{event.name.removeprefix('aten::')}[{'+'.join(dtypes)}]"


def _is_heavy(event: FunctionEvent) -> bool:
    namespace, separator, name = event.name.partition("::")
    if not separator or not name.isidentifier():
        return False
    return name in _HEAVY if namespace == "aten" else namespace not in _LIBRARY


def _below(event: FunctionEvent) -> Iterator[FunctionEvent]:
    for inner in event.cpu_children:
        yield inner
        yield from _below(inner)


def _matrix_dtypes(event: FunctionEvent) -> Iterator[str]:
    """Dtypes of the arguments of two dimensions or more: biases and scales do not decide."""
    shapes: Any = event.input_shapes  # its annotation says one tuple of ints
    for shape, dtype in zip(shapes, event.input_dtypes, strict=True):
        if len(shape) >= 2 and dtype != "TensorList":
            yield _DTYPES.get(dtype, dtype)


def _state_file(artifact: Artifact) -> Path:
    return artifact.folder / "state.pt"
