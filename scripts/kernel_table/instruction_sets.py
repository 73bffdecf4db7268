"""Which instruction sets each library uses in a process like those that measure, and how that was found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from onnx import TensorProto, helper

import leanmark_kernels
from kernel_table import graphs, runtimes
from leanmark_kernels.convert.block import Block


@dataclass(frozen=True, slots=True)
class Evidence:
    instruction_sets: str
    how: str


def found() -> Mapping[str, Evidence]:
    """By library."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_examined).result()


def _examined() -> dict[str, Evidence]:
    libraries: dict[str, Callable[[], Evidence]] = {
        "ours": lambda: Evidence(leanmark_kernels.instruction_set(), "the operators' own choice"),
        "torch": lambda: Evidence(torch.backends.cpu.get_cpu_capability(), "get_cpu_capability()"),
        "torch.compile": _compile,
        "oneDNN in torch": _onednn,
        "MKL in torch": _mkl,
        "ONNX Runtime": _onnxruntime,
    }
    if runtimes.HAS_OPENVINO:
        libraries["OpenVINO"] = _openvino
    return {name: examine() for name, examine in libraries.items()}


def _compile() -> Evidence:
    from torch._inductor import cpu_vec_isa

    return Evidence(str(cpu_vec_isa.pick_vec_isa()), "inductor's pick_vec_isa()")


def _onednn() -> Evidence:
    program = "import torch; torch.conv2d(torch.ones(1, 64, 56, 56), torch.ones(64, 64, 3, 3))"
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [isa] = re.findall(r"info,cpu,isa:(.*)", said)
    [primitive] = re.findall(r"exec,cpu,convolution,([^,]*)", said)
    return Evidence(isa, f"ONEDNN_VERBOSE; a convolution runs in {primitive}")


def _mkl() -> Evidence:
    asked = os.environ.get("MKL_ENABLE_INSTRUCTIONS")
    how = f"MKL_ENABLE_INSTRUCTIONS={asked}" if asked else "its own choice"
    return Evidence(asked or "not told", f"{how}; it tells no one, and may use less on processors of others")


def _onnxruntime() -> Evidence:
    """Without VNNI, it adds pairs of 8-bit products up in 16 bits, which 2 * 255 * 127 does not fit into."""
    import onnxruntime as ort

    depth = 64
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [4, depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [4, depth])],
        [helper.make_tensor("w", TensorProto.INT8, [depth, depth], [127] * depth**2)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [sums] = session.run(None, {"x": np.full((4, depth), 255, np.uint8)})
    exact = bool((sums == 255 * 127 * depth).all())
    says = f"its 8-bit sums are {'exact' if exact else 'saturated'}"
    if "LD_PRELOAD" not in os.environ:
        return Evidence("with VNNI" if exact else "without VNNI", says)
    return Evidence("VNNI is left" if exact else "AVX2", f"CPUID is answered for the processor; {says}")


def _openvino() -> Evidence:
    block = Block(torch.nn.Conv2d(64, 64, 3, padding=1), "relu").eval()
    shape = (1, 64, 14, 14)
    compiled = runtimes.in_openvino(graphs.fp32(block), shape, shape)
    said = compiled.get_property("RUNTIME_REQUIREMENTS")
    facts = [one.get_rt_info() for one in compiled.get_runtime_model().get_ops()]
    [primitive] = [
        one["primitiveType"].astype(str) for one in facts if one["layerType"].astype(str) == "Convolution"
    ]
    how = f"RUNTIME_REQUIREMENTS; a convolution runs in {primitive}"
    if "LD_PRELOAD" in os.environ:
        how = f"CPUID is answered for the processor; {how}"
    return Evidence(said.rpartition("isa=")[2], how)
