from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from leanmark.backends.base import Work
from leanmark.backends.onnxruntime import OnnxRuntime
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.techniques import ort_quantizer
from leanmark.techniques.base import Context
from leanmark.techniques.int8 import Int8
from leanmark.techniques.ort_quantizer import Saturation, saturation
from leanmark.workloads.base import Dataset, Split, Workload

Kind = Literal["static", "dynamic"]
RANDOM = np.random.default_rng(0)


class Sorted(Workload):
    """100 samples whose values grow with their index, as in a training set sorted by class."""

    def __init__(self, kind: Kind, shape: tuple[int, ...]) -> None:
        self.kind = kind
        self.shape = shape

    @property
    def quantization(self) -> Kind:
        return self.kind

    def model(self, seed: int = 0) -> nn.Module:
        return nn.Identity()

    def dataset(self) -> Dataset:
        scale = torch.linspace(0.1, 2.0, 100).reshape(-1, *[1] * len(self.shape))
        inputs = torch.randn(100, *self.shape, generator=torch.Generator().manual_seed(0)) * scale
        split = Split(inputs=inputs, targets=torch.zeros(100, dtype=torch.int64))
        return Dataset(train=split, test=split)


def context(kind: Kind, shape: tuple[int, ...]) -> Context:
    return Context(workload=Sorted(kind, shape), baseline=nn.Identity())


def node(operator: str, *weights: str, **attributes: Any) -> NodeProto:
    """An operator between the placeholders ``<`` and ``>``, which `graph` replaces."""
    return helper.make_node(operator, ["<", *weights], [">"], **attributes)


def graph(path: Path, shape: Sequence[int], nodes: Sequence[NodeProto], **weights: tuple[int, ...]) -> Path:
    """A chain of ``nodes`` from input ``x`` to output ``y`` [batch, classes], with random weights."""
    for index, each in enumerate(nodes):
        each.name = f"{each.op_type}_{index}"
        each.input[0] = "x" if index == 0 else f"t{index}"
        each.output[0] = "y" if index == len(nodes) - 1 else f"t{index + 1}"
    read = {name for each in nodes for name in each.input}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "classes"])],
            [
                numpy_helper.from_array((RANDOM.standard_normal(size) * 0.2).astype(np.float32), name)
                for name, size in weights.items()
            ]
            + [numpy_helper.from_array(np.array([0, 1]), "axes")] * ("axes" in read),
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def convolutional(path: Path) -> Path:
    nodes = [
        node("Conv", "w1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu"),
        node("Conv", "w2", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu"),
        node("GlobalAveragePool"),
        node("Flatten"),
        node("Gemm", "w3", transB=1),
    ]
    return graph(path, (1, 8, 8), nodes, w1=(16, 1, 3, 3), w2=(16, 16, 3, 3), w3=(10, 16))


def linear(path: Path) -> Path:
    nodes = [node("Gemm", "w1", transB=1), node("Relu"), node("Gemm", "w2", transB=1)]
    return graph(path, (32,), nodes, w1=(64, 32), w2=(10, 64))


def tied(path: Path) -> Path:
    """The same square weight twice."""
    nodes = [node("Gemm", "w", transB=1), node("Relu"), node("Gemm", "w", transB=1)]
    return graph(path, (32,), nodes, w=(32, 32))


def recurrent(path: Path, operator: str, gates: int, units: int, classes: int = 10) -> Path:
    """``axes`` are time and direction: the mean state over time is classified."""
    nodes = [
        node("Transpose", perm=[1, 0, 2]),
        node(operator, "w", "r", hidden_size=units),
        node("ReduceMean", "axes", keepdims=0),
        node("MatMul", "out"),
    ]
    shapes = {"w": (1, gates * units, 8), "r": (1, gates * units, units), "out": (units, classes)}
    return graph(path, (8, 8), nodes, **shapes)


def executed(path: Path, shape: tuple[int, ...]) -> Executed:
    inputs = RANDOM.standard_normal((4, *shape)).astype(np.float32)
    work = Work(phase="inference", inputs=inputs, targets=None, threads=1, device="cpu")
    folder = path.parent / f"artifact of {path.stem}"
    folder.mkdir()
    artifact = Artifact(folder)
    artifact.graph_file.write_bytes(path.read_bytes())
    return OnnxRuntime().open(artifact, work).executed()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("broken_techniques")


@pytest.mark.parametrize(
    ("build", "kind", "shape", "quantized", "ran"),
    [
        (convolutional, "static", (1, 8, 8), {"Conv": 2, "Gemm": 1}, {"QLinearConv": 2, "QGemm": 1}),
        (linear, "static", (32,), {"Gemm": 2}, {"QGemm": 2}),
        (linear, "dynamic", (32,), {"MatMulInteger": 2}, {"DynamicQuantizeMatMul": 2}),
    ],
    ids=["static convolutional", "static linear", "dynamic linear"],
)
def test_every_weight_becomes_int8_and_runs_as_such(
    tmp_path: Path,
    build: Callable[[Path], Path],
    kind: Kind,
    shape: tuple[int, ...],
    quantized: dict[str, int],
    ran: dict[str, int],
) -> None:
    source, target = build(tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    original = source.read_bytes()
    Int8().apply_graph(source, target, context(kind, shape))
    facts = Int8().verify_graph(source, target)
    assert (facts["kind"], facts["quantized"], facts["left_float"]) == (kind, quantized, {})
    assert facts["int8_weight_share"] == 1.0
    assert 0.0 < facts["output_error"] < 0.05
    assert 0.0 <= facts["saturation_gap"] < 0.05
    assert facts["reduce_range"] == saturation().saturates
    assert source.read_bytes() == original
    operators = executed(target, shape)
    assert {name: operators.operators[name] for name in ran} == ran
    Int8().verify_executed(operators)


def test_lstm_runs_as_int8(tmp_path: Path) -> None:
    source, target = recurrent(tmp_path / "float.onnx", "LSTM", gates=4, units=16), tmp_path / "int8.onnx"
    Int8().apply_graph(source, target, context("dynamic", (8, 8)))
    facts = Int8().verify_graph(source, target)
    assert facts["quantized"]["DynamicQuantizeLSTM"] == 1
    assert facts["left_float"] == {}
    Int8().verify_executed(executed(target, (8, 8)))


def test_lstm_weights_that_are_computed_are_folded_first(tmp_path: Path) -> None:
    # torch's exporter writes the weights of a recurrent layer as slices and concatenations of constants
    source, target = recurrent(tmp_path / "float.onnx", "LSTM", gates=4, units=16), tmp_path / "int8.onnx"
    model = onnx.load(source)
    whole = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    halves = np.split(numpy_helper.to_array(whole), 2, axis=1)
    model.graph.initializer.remove(whole)
    model.graph.initializer.extend([numpy_helper.from_array(h, f"w{i}") for i, h in enumerate(halves)])
    model.graph.node.insert(0, helper.make_node("Concat", ["w0", "w1"], ["w"], axis=1))
    onnx.save(model, source)
    Int8().apply_graph(source, target, context("dynamic", (8, 8)))
    facts = Int8().verify_graph(source, target)
    assert facts["quantized"] == {"DynamicQuantizeLSTM": 1, "MatMulInteger": 1}
    assert facts["output_error"] < 0.05


def test_float_lstm_whose_weights_are_not_constants_is_caught(tmp_path: Path) -> None:
    source, target = recurrent(tmp_path / "float.onnx", "LSTM", gates=4, units=16), tmp_path / "int8.onnx"
    Int8().apply_graph(linear(tmp_path / "linear.onnx"), target, context("dynamic", (32,)))
    quantized, lstm = onnx.load(target), onnx.load(source)
    quantized.graph.node.extend(each for each in lstm.graph.node if each.op_type == "LSTM")
    onnx.save(quantized, target)
    with pytest.raises(TookNoEffect, match="dynamic quantization left weights in float: LSTM LSTM_1"):
        Int8().verify_graph(source, target)


def test_tied_gemm_weights_are_not_transposed_twice(tmp_path: Path) -> None:
    source, target = tied(tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    Int8().apply_graph(source, target, context("dynamic", (32,)))
    assert Int8().verify_graph(source, target)["output_error"] < 0.05


def test_gru_alone_is_refused(tmp_path: Path) -> None:
    source = recurrent(tmp_path / "float.onnx", "GRU", gates=3, units=16)
    with pytest.raises(Unsupported, match="dynamic int8 cannot quantize most .* GRU in float"):
        Int8().apply_graph(source, tmp_path / "int8.onnx", context("dynamic", (8, 8)))


def test_gru_beside_heavier_layers_is_recorded(tmp_path: Path) -> None:
    source = recurrent(tmp_path / "float.onnx", "GRU", gates=3, units=16, classes=200)
    target = tmp_path / "int8.onnx"
    Int8().apply_graph(source, target, context("dynamic", (8, 8)))
    facts = Int8().verify_graph(source, target)
    assert (facts["quantized"], facts["left_float"]) == ({"MatMulInteger": 1}, {"GRU": 1})
    assert facts["int8_weight_share"] == pytest.approx(3200 / (3200 + 48 * 8 + 48 * 16))


def test_convolutions_are_refused_by_the_dynamic_kind(tmp_path: Path) -> None:
    source = convolutional(tmp_path / "float.onnx")
    with pytest.raises(Unsupported, match="Conv in float"):
        Int8().apply_graph(source, tmp_path / "int8.onnx", context("dynamic", (1, 8, 8)))


@pytest.mark.parametrize("saturates", [True, False])
def test_weights_use_7_bits_where_8_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    monkeypatch.setattr(ort_quantizer, "saturation", lambda: Saturation(saturates, "said so"))
    source, target = linear(tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    Int8().apply_graph(source, target, context("static", (32,)))
    facts = Int8().verify_graph(source, target)
    assert (facts["reduce_range"], facts["reduce_range_reason"]) == (saturates, "said so")
    tensors = [
        t for t in onnx.load(target).graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2
    ]
    largest = max(int(np.abs(numpy_helper.to_array(tensor).astype(int)).max()) for tensor in tensors)
    assert largest == (64 if saturates else 127)


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "fma avx2", True),
        ("x86_64", "avx2 avx512f avx512bw", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("AMD64", "avx512f avx512_vnni", False),
        ("x86_64", None, True),
        ("aarch64", None, False),
    ],
)
def test_saturation_follows_the_processor_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str | None, saturates: bool
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"model name\t: some\nflags\t\t: {flags}\n")
    found = saturation(cpuinfo)
    assert found.saturates == saturates
    assert found.reason


def test_copying_the_graph_is_caught_in_the_file_and_in_the_run(tmp_path: Path, broken: ModuleType) -> None:
    technique = broken.Int8CopiesGraph()
    source, target = linear(tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    technique.apply_graph(source, target, context("dynamic", (32,)))
    with pytest.raises(TookNoEffect, match=r"no weight in int8\.onnx is an 8-bit integer"):
        technique.verify_graph(source, target)
    with pytest.raises(TookNoEffect, match="no integer operator ran, only: .*Gemm"):
        technique.verify_executed(executed(target, (32,)))


def test_one_layer_left_in_float_is_caught(tmp_path: Path) -> None:
    source, target = convolutional(tmp_path / "float.onnx"), tmp_path / "int8.onnx"
    Int8().apply_graph(source, target, context("static", (1, 8, 8)))
    model = onnx.load(target)
    weights = {tensor.name: tensor for tensor in onnx.load(source).graph.initializer}
    last = [each for each in model.graph.node if each.op_type == "Conv"][-1]
    model.graph.initializer.append(weights["w2"])
    last.input[1] = "w2"
    onnx.save(model, target)
    with pytest.raises(TookNoEffect, match="static quantization left weights in float: Conv Conv_2"):
        Int8().verify_graph(source, target)


@pytest.mark.parametrize(
    ("operators", "message"),
    [
        (("QLinearConv", "QGemm", "QuantizeLinear"), None),
        (("DynamicQuantizeLSTM", "MatMul"), None),
        (("MatMulInteger", "Conv"), None),
        (("DequantizeLinear", "FusedConv", "QuantizeLinear"), "no integer operator"),
        (("QLinearConv", "FusedConv"), "ran in float: FusedConv"),
        (("QLinearMatMul", "Gemm", "Conv"), "ran in float: Conv, Gemm"),
        ((), "no integer operator"),
    ],
)
def test_what_ran_decides(operators: tuple[str, ...], message: str | None) -> None:
    ran = Executed(operators=dict.fromkeys(operators, 1), threads=1, device="cpu")
    if message is None:
        Int8().verify_executed(ran)
        return
    with pytest.raises(TookNoEffect, match=message):
        Int8().verify_executed(ran)


def test_the_process_stays_quiet_and_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, root.manager.disable)
    Int8().apply_graph(
        convolutional(tmp_path / "float.onnx"), tmp_path / "int8.onnx", context("static", (1, 8, 8))
    )
    assert (list(root.handlers), root.level, root.manager.disable) == before
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
