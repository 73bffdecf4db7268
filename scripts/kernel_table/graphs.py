"""A layer or a model as an ONNX graph, for every library that reads one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from leanmark_kernels.convert.block import Block, Layer


@dataclass(frozen=True, slots=True)
class Graph:
    """From ``x`` to ``y``; ``values`` are its constants, ``weights`` is how those of the layer are stored.

    Where ``weight_only``, activations must not be rounded to as few bits.
    """

    nodes: Sequence[NodeProto]
    values: dict[str, np.ndarray]
    weights: str = "fp32"
    weight_only: bool = False

    def serialized(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """With these shapes of ``x`` and ``y``."""
        graph = helper.make_graph(
            list(self.nodes),
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs)],
            [numpy_helper.from_array(array, key) for key, array in self.values.items()],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        serialized: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        return serialized

    def bytes(self) -> int:
        return sum(array.nbytes for array in self.values.values())


def fp32(block: Block) -> Graph:
    layer = block.layer
    assert isinstance(layer, Layer) and layer.bias is not None
    values = {"w": layer.weight.detach().numpy(), "b": layer.bias.detach().numpy()}
    if isinstance(layer, nn.Linear):
        return Graph([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], values)
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], **options(layer))
    return Graph([conv, helper.make_node("Relu", ["c"], ["y"])], values)


def options(conv: nn.Conv2d) -> dict[str, Any]:
    """The attributes of the ONNX operator."""
    return {"pads": [*conv.padding, *conv.padding], "strides": list(conv.stride), "group": conv.groups}


def exported(model: nn.Module, x: Tensor) -> Graph:
    """``model`` as torch writes it, batch norm folded."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch's newer exporter takes ten times as long, and no library runs its graph faster
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (x,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            opset_version=20,
        )
    graph = onnx.load_from_string(file.getvalue()).graph
    return Graph(graph.node, {each.name: numpy_helper.to_array(each) for each in graph.initializer})


def nbits(linear: nn.Linear, bits: int, block_size: int, weight_only: bool = False) -> Graph:
    """MatMulNBits, at accuracy level 4, ONNX Runtime's fastest: 8-bit activations. OpenVINO has them too.

    With ``weight_only`` at accuracy level 1: float32 activations.
    """
    assert linear.bias is not None
    groups = linear.weight.detach().view(linear.out_features, -1, block_size)
    most = 2 ** (bits - 1) - 1
    scale = groups.abs().amax(-1).clamp(min=1e-12) / most
    levels = ((groups / scale[..., None]).round() + most + 1).numpy().astype(np.uint8)
    packed = levels if bits == 8 else levels[..., ::2] | levels[..., 1::2] << 4
    values = {"w": packed, "s": scale.flatten().numpy(), "b": linear.bias.detach().numpy()}
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s", "", "", "b"],
        ["y"],
        domain="com.microsoft",
        accuracy_level=1 if weight_only else 4,
        K=linear.in_features,
        N=linear.out_features,
        bits=bits,
        block_size=block_size,
    )
    return Graph([node], values, "w8" if bits == 8 else "w4a8", weight_only)
