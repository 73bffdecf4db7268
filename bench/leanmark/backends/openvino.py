"""OpenVINO on processors, in float32. Running a model here imports no torch."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from leanmark.backends import onnx_export
from leanmark.backends.base import Array, Backend, Executable, Work
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.record import Phase

if TYPE_CHECKING:
    from openvino import CompiledModel
    from torch import nn

_CHUNK = 256
_PACKAGES = ("openvino", "onnx", "onnxscript")
_NO_WORK = ("Input", "Const", "Output")
_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8"}


class OpenVino(Backend):
    refusal: ClassVar[str] = "leanmark runs OpenVINO in inference, on processors"
    exports = True

    def runtime_modules(self, phase: Phase) -> tuple[str, ...]:
        return ("openvino",)

    def unavailable(self) -> str | None:
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(missing)}" if missing else None

    def build(self, module: nn.Module, artifact: Artifact, example: Array) -> None:
        onnx_export.write(module, artifact.graph_file, example)

    def open(self, artifact: Artifact, work: Work) -> Executable:
        return _Request(artifact, work)

    def shipped_bytes(self, artifact: Artifact) -> int:
        return artifact.graph_file.stat().st_size


class _Request(Executable):
    """A model compiled for the shape of its inputs, bound to buffers of its own: a step copies nothing."""

    def __init__(self, artifact: Artifact, work: Work) -> None:
        import openvino

        self._graph, self._options = artifact.graph_file, _options(work.threads)
        self._compiled = self._for_batch(len(work.inputs))
        self._inputs: Array = work.inputs.copy()
        self._outputs = np.empty(tuple(self._compiled.output(0).shape), np.float32)
        self._request = self._compiled.create_infer_request()
        self._request.set_input_tensor(openvino.Tensor(self._inputs, shared_memory=True))
        self._request.set_output_tensor(openvino.Tensor(self._outputs, shared_memory=True))

    def _for_batch(self, size: int) -> CompiledModel:
        import openvino

        core = openvino.Core()
        model = core.read_model(self._graph)
        shape = model.input(0).partial_shape
        shape[0] = size
        model.reshape(shape)
        return core.compile_model(model, "CPU", self._options)

    def step(self) -> None:
        self._request.infer(share_outputs=True)

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        starts = range(0, len(inputs), _CHUNK)
        chunks = [np.ascontiguousarray(inputs[start : start + _CHUNK]) for start in starts]
        compiled = {size: self._for_batch(size) for size in {len(chunk) for chunk in chunks}}
        return np.concatenate([np.array(compiled[len(chunk)](chunk)[0]) for chunk in chunks])

    def executed(self) -> Executed:
        """Operators of the graph that is executed, with the dtype they compute in."""
        [device] = self._compiled.get_property("EXECUTION_DEVICES")
        return Executed(
            operators=dict(Counter(_executed(self._compiled))),
            threads=self._compiled.get_property("INFERENCE_NUM_THREADS"),
            device=device.lower(),
        )


def _executed(compiled: CompiledModel) -> Iterator[str]:
    """Every operator; one that is not on numbers, such as the arithmetic on shapes, has no dtype."""
    for operator in compiled.get_runtime_model().get_ordered_ops():
        facts = operator.get_rt_info()
        kind, dtype = (facts[name].astype(str) for name in ("layerType", "runtimePrecision"))
        if kind not in _NO_WORK:
            yield f"{kind}[{_DTYPES[dtype]}]" if dtype in _DTYPES else kind


def _options(threads: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # the worker itself is pinned to its cores
        "INFERENCE_PRECISION_HINT": "f32",  # or it computes in bfloat16 where the processor can
    }
