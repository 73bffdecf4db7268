"""Which weights of an ONNX graph are integers, and which operators a quantized graph runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from onnx import GraphProto

# operator -> positions of its weights among its inputs
_WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (1,),
    "Attention": (1,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "QAttention": (1,),
    "DynamicQuantizeLSTM": (1, 2),
}
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})  # their weights are computed only if folding failed
_INTEGERS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant that ``operator`` of ``node`` reads, seen through a DequantizeLinear if there is one."""

    operator: str
    node: str
    elements: int
    integer: bool


def weights(graph: GraphProto) -> list[Weight]:
    """All constant weights of the heavy operators of ``graph``."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    dequantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for node in graph.node:
        for position in _WEIGHT_INPUTS.get(node.op_type, ()):
            name = node.input[position]
            tensor = constants.get(dequantized.get(name, name))
            if tensor is not None:
                integer = tensor.data_type in _INTEGERS
                found.append(Weight(node.op_type, node.name, math.prod(tensor.dims), integer))
            elif node.op_type in _RECURRENT:
                found.append(Weight(node.op_type, node.name, 0, False))
    return found


def share(some: Iterable[Weight], of: Iterable[Weight]) -> float:
    """Elements in ``some`` over elements in ``of``; 0.0 where there are none."""
    total = sum(weight.elements for weight in of)
    return sum(weight.elements for weight in some) / total if total else 0.0


def by_operator(some: Iterable[Weight]) -> dict[str, int]:
    """How many nodes of each operator hold the weights ``some``."""
    nodes = {(weight.operator, weight.node) for weight in some}
    return dict(sorted(Counter(operator for operator, _ in nodes).items()))
