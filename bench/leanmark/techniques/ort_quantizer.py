"""ONNX Runtime's quantizers, with what they need done before they work on graphs exported by torch.

Imports ONNX Runtime and no torch. Nothing here changes logging or any other setting of the process for good.
"""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

Kind = Literal["static", "dynamic"]
Samples = NDArray[np.float32]

QUANTIZABLE: dict[Kind, frozenset[str]] = {
    "static": frozenset({"Conv", "Gemm", "MatMul"}),
    "dynamic": frozenset({"Gemm", "MatMul", "LSTM", "Attention"}),
}
"""Operators with integer kernels on the CPU. ORT rewrites ConvTranspose too but then runs it in float."""

_CALIBRATION_BATCH = 32


@dataclass(frozen=True, slots=True)
class Saturation:
    """Whether sums of two int8 products overflow int16 on this processor, and how that is known."""

    saturates: bool
    reason: str


def saturation(cpuinfo: Path = Path("/proc/cpuinfo")) -> Saturation:
    """x86 without VNNI multiplies int8 with VPMADDUBSW, whose int16 sums saturate; 7-bit weights do not."""
    machine = platform.machine().lower()
    if machine not in {"x86_64", "amd64", "i386", "i686"}:
        return Saturation(False, f"{machine} sums int8 products in 32 bits")
    if not cpuinfo.exists():
        return Saturation(True, "processor flags unknown, taken as x86 without VNNI")
    flags = set(cpuinfo.read_text().split())
    vnni = sorted(flags & {"avx512_vnni", "avx_vnni"})
    if vnni:
        return Saturation(False, f"the processor has {', '.join(vnni)}")
    return Saturation(True, "x86 without VNNI")


def prepare(source: Path, target: Path) -> None:
    """Fold constants, so that the weights of recurrent layers become constants the quantizer can see."""
    model = onnx.load(source)
    _forget_shapes(model)
    # ONNX Runtime's own preparation throws away what it folded in some releases: 1.25.1, 1.27 and 1.30
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    folded = onnx.load(target)
    _forget_shapes(folded)
    _unshare_gemm_weights(folded.graph)
    onnx.save(folded, target)


def quantize(source: Path, target: Path, kind: Kind, reduce_range: bool, samples: Samples) -> None:
    """Write the int8 version of a prepared graph; ``samples`` [N, ...] calibrate the static kind."""
    graph = onnx.load(source).graph
    with _quiet():
        if kind == "dynamic":
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=sorted(QUANTIZABLE["dynamic"]),
                weight_type=QuantType.QInt8,
                per_channel=True,
                reduce_range=reduce_range,
            )
            return
        quantize_static(
            source,
            target,
            _Reader(graph.input[0].name, samples),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            nodes_to_exclude=[node.name for node in graph.node if node.op_type == "ConvTranspose"],
        )


def run(graph: Path, inputs: Samples, optimised: bool) -> NDArray[np.float64]:
    """Outputs of ``graph`` with all of ORT's optimisations (integer kernels) or none (float simulation)."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0], dtype=np.float64)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, samples: Samples) -> None:
        batches = range(0, len(samples), _CALIBRATION_BATCH)
        self._feeds = iter([{name: samples[i : i + _CALIBRATION_BATCH]} for i in batches])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _forget_shapes(model: onnx.ModelProto) -> None:
    # torch's exporter leaves shapes that the quantizer, having transposed Gemm weights, rejects
    # (onnxruntime issue 25890)
    del model.graph.value_info[:]


def _unshare_gemm_weights(graph: onnx.GraphProto) -> None:
    """Give each Gemm its own weight: quantize_dynamic transposes a weight once for every Gemm it feeds."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        name = node.input[1] if node.op_type == "Gemm" else ""
        if readers[name] > 1 and name in constants:
            own = onnx.TensorProto()
            own.CopyFrom(constants[name])
            own.name = f"{name}_of_{node.output[0]}"
            graph.initializer.append(own)
            node.input[1] = own.name
            readers[name] -= 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, through which the quantizers speak, and put it back as it was."""
    root = logging.getLogger()
    handlers, disabled = list(root.handlers), root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
