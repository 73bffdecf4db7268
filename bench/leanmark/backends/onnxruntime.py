"""ONNX Runtime with all graph optimisations. Running a model here imports no torch."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from leanmark.backends import onnx_cuda, onnx_export
from leanmark.backends.base import Array, Backend, Executable, Work
from leanmark.devices.base import Accelerator, Device
from leanmark.machine.counters import Counted
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.record import Phase

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, SessionOptions
    from torch import nn

_CHUNK = 256
_PACKAGES = ("onnxruntime", "onnx", "onnxscript")


class OnnxRuntime(Backend):
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    refusal: ClassVar[str] = "ONNX Runtime only runs inference"
    exports = True

    def runtime_modules(self, phase: Phase) -> tuple[str, ...]:
        return ("onnxruntime",)

    def unavailable(self) -> str | None:
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(missing)}" if missing else None

    def unavailable_on(self, device: str) -> str | None:
        return self.unavailable() or (onnx_cuda.unavailable() if device == "cuda" else None)

    def accelerator(self, device: Device, name: str) -> Accelerator:
        return onnx_cuda.GpuOfOnnxRuntime() if name == "cuda" else device.accelerator()

    def build(self, module: nn.Module, artifact: Artifact, example: Array) -> None:
        onnx_export.write(module, artifact.graph_file, example)

    def open(self, artifact: Artifact, work: Work) -> Executable:
        return _Session(artifact.graph_file, work)

    def shipped_bytes(self, artifact: Artifact) -> int:
        return artifact.graph_file.stat().st_size


class _Session(Executable):
    """A session bound to buffers of its own, so that a step copies and allocates nothing."""

    def __init__(self, graph: Path, work: Work) -> None:
        self._graph, self._threads, self._on_gpu = graph, work.threads, work.device == "cuda"
        self._session = self._started(_options(work.threads))
        self._input = self._session.get_inputs()[0].name
        self._inputs: Array = work.inputs.copy()
        self._outputs = np.ascontiguousarray(self._run(self._inputs))
        self._binding = self._bound()

    def _started(self, options: SessionOptions) -> InferenceSession:
        import onnxruntime

        if self._on_gpu:
            return onnx_cuda.start(str(self._graph), options)
        return onnxruntime.InferenceSession(self._graph, options, providers=["CPUExecutionProvider"])

    def _bound(self) -> IOBinding:
        if self._on_gpu:
            return onnx_cuda.bind(self._session, self._inputs, self._outputs)
        binding = self._session.io_binding()
        binding.bind_input(
            self._input, "cpu", 0, self._inputs.dtype, self._inputs.shape, self._inputs.ctypes.data
        )
        binding.bind_output(
            self._session.get_outputs()[0].name,
            "cpu", 0, self._outputs.dtype, self._outputs.shape, self._outputs.ctypes.data,
        )  # fmt: skip
        return binding

    def step(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        starts = range(0, len(inputs), _CHUNK)
        return np.concatenate([self._run(inputs[start : start + _CHUNK]) for start in starts])

    def executed(self) -> Executed:
        """Operator types of the optimised graph, from the profile of one run."""
        events = list(self._profiled())
        return Executed(
            operators=dict(Counter(event["op_name"] for event in events)),
            threads=self._session.get_session_options().intra_op_num_threads,
            device=onnx_cuda.devices(events) if self._on_gpu else "cpu",  # the only provider asked for
        )

    def _run(self, inputs: Array) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self._session.run(None, {self._input: inputs})[0]
        return result

    def counted(self) -> Counted:
        """Operators of the optimised graph and the sizes of their results, from the profile of one run."""
        events = list(self._profiled())
        return Counted(
            counts={
                "operator_calls": len(events),
                "written_bytes": sum(int(event["output_size"]) for event in events),
            },
            missing={
                "flops": "ONNX Runtime does not tell those of fused operators",
                "read_bytes": "ONNX Runtime leaves weights that it packed out of its account",
                **dict.fromkeys(
                    ("allocations", "allocated_bytes"), "ONNX Runtime plans its memory ahead of the steps"
                ),
            },
        )

    def _profiled(self) -> Iterator[Mapping[str, Any]]:
        """What the profile of one run says about each operator."""
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._threads)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = self._started(options)
            session.run(None, {self._input: self._inputs})
            events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        for event in events:
            # in older releases, as 1.20, there are also fences around it
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                yield event["args"]


def _options(threads: int) -> SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads that spin would burn the time and energy of the variant that runs next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
