"""The libraries that run a graph: input and output in fixed buffers, as many threads as torch has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from kernel_table.contenders import Contender
from kernel_table.graphs import Graph
from kernel_table.slices import on_all_cores

if TYPE_CHECKING:
    from openvino import CompiledModel

HAS_OPENVINO = find_spec("openvino") is not None


def every(graph: Graph, x: Tensor, shape: Sequence[int], suffix: str = "") -> Iterator[Contender]:
    """``graph`` from ``x`` to an output of ``shape`` in every library that is installed."""
    yield onnxruntime(graph, x, shape, suffix)
    if HAS_OPENVINO:
        yield openvino(graph, x, shape, suffix)


def onnxruntime(graph: Graph, x: Tensor, shape: Sequence[int], suffix: str = "") -> Contender:
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # as long as those of torch; by default they keep the cores from everyone else's for longer
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    model = graph.serialized(x.shape, shape)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    source = ort.OrtValue.ortvalue_from_numpy(x.contiguous().numpy())
    target = ort.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
    binding.bind_ortvalue_input("x", source)
    binding.bind_ortvalue_output("y", target)

    def call(keep: object = (source, target)) -> None:
        session.run_with_iobinding(binding)

    def output() -> Tensor:
        call()
        return torch.from_numpy(target.numpy())

    return Contender(f"ONNX Runtime{suffix}", call, output, graph.weights, bytes=graph.bytes())


def openvino(graph: Graph, x: Tensor, shape: Sequence[int], suffix: str = "") -> Contender:
    import openvino as ov

    request = in_openvino(graph, x.shape, shape).create_infer_request()
    source, target = x.contiguous().numpy(), np.empty(shape, np.float32)
    request.set_input_tensor(ov.Tensor(source, shared_memory=True))
    request.set_output_tensor(ov.Tensor(target, shared_memory=True))

    def call(keep: object = (source, target)) -> None:
        request.infer(share_outputs=True)

    def output() -> Tensor:
        call()
        return torch.from_numpy(target)

    return Contender(f"OpenVINO{suffix}", call, output, graph.weights, bytes=graph.bytes())


def in_openvino(graph: Graph, inputs: Sequence[int], outputs: Sequence[int]) -> CompiledModel:
    """``graph`` for these shapes, computed in float32 as by the others."""
    import openvino as ov

    core = ov.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # nobody else pins threads
        "INFERENCE_PRECISION_HINT": "f32",  # where the processor has bfloat16, that would be its default
    }
    if graph.weight_only:
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0  # with VNNI it is 32 activations by default
    with on_all_cores():
        return core.compile_model(core.read_model(graph.serialized(inputs, outputs)), "CPU", options)
