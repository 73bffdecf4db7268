"""ONNX Runtime's CUDA provider: inputs and outputs stay on the GPU. Running a model here imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from leanmark.devices.base import Accelerator
from leanmark.errors import Unsupported

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, SessionOptions

    from leanmark.backends.base import Array

PROVIDER = "CUDAExecutionProvider"
PLACE = "cuda"

_PACKAGE = "onnxruntime-gpu"
OPTIONS = {
    "device_id": "0",  # the only one that a worker sees
    "use_tf32": "0",  # on by default, and no fp32
}
_FLOATING = ("float", "double", "bfloat16")


def unavailable() -> str | None:
    """Why ONNX Runtime has no CUDA here, or ``None``. Imports nothing."""
    try:
        version(_PACKAGE)
    except PackageNotFoundError:
        return f"its build is for processors: pip uninstall onnxruntime, then pip install {_PACKAGE}"
    return None


def start(graph: str, options: SessionOptions) -> InferenceSession:
    """A session on the GPU.

    Raises:
        Unsupported: the provider is not in this build, or cannot start (it falls back without an error).
    """
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        raise Unsupported(f"ONNX Runtime has no {PROVIDER}: {unavailable() or 'its build lacks it'}")
    session = onnxruntime.InferenceSession(graph, options, providers=[(PROVIDER, OPTIONS)])
    if PROVIDER not in session.get_providers():
        raise Unsupported(
            f"ONNX Runtime's {PROVIDER} does not start here; what it prints names the library of CUDA or "
            "cuDNN that is missing or of another version"
        )
    return session


def bind(session: InferenceSession, inputs: Array, outputs: Array) -> IOBinding:
    """Buffers on the GPU for ``inputs`` [batch, ...], filled, and for outputs like ``outputs``."""
    import onnxruntime

    binding = session.io_binding()
    source = onnxruntime.OrtValue.ortvalue_from_numpy(inputs, PLACE, 0)
    target = onnxruntime.OrtValue.ortvalue_from_shape_and_type(outputs.shape, outputs.dtype, PLACE, 0)
    binding.bind_ortvalue_input(session.get_inputs()[0].name, source)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, target)
    return binding


def devices(events: Iterable[Mapping[str, Any]]) -> str:
    """Where the operators of a profile ran: ``cuda``, or ``cpu+cuda`` where some that compute did not.

    ONNX Runtime leaves arithmetic on shapes to the processor on purpose.
    """
    known = list(events)
    found = {"cuda" for event in known if event["provider"] == PROVIDER}
    found |= {"cpu" for event in known if event["provider"] != PROVIDER and _computes(event)}
    return "+".join(sorted(found)) or "cpu"


class GpuOfOnnxRuntime(Accelerator):
    """A GPU whose every step ONNX Runtime waits for: its own time and memory are not told apart."""

    name = "cuda"

    def facts(self) -> Mapping[str, str]:
        from leanmark.devices.cuda import visible

        board = visible()[0]
        return {"gpu": board.name, "gpu_uuid": board.uuid, "compute_capability": board.capability}


def _computes(event: Mapping[str, Any]) -> bool:
    results: Sequence[Mapping[str, Any]] = event["output_type_shape"]
    return any(kind.startswith(_FLOATING) for result in results for kind in result)
