"""Graphs of layers in 8 bits. Without VNNI, sums of some libraries saturate: the error of the table tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from kernel_table import graphs
from kernel_table.graphs import Graph
from leanmark_kernels.convert.block import Block, Layer


def dynamic(block: Block) -> Graph:
    """Activations quantised in every call: ONNX Runtime's way."""
    layer = block.layer
    assert isinstance(layer, Layer) and layer.bias is not None
    operator, attributes = "MatMulInteger", dict[str, Any]()
    shape: tuple[int, ...] = (1, -1)
    if isinstance(layer, nn.Conv2d):
        operator, attributes, shape = "ConvInteger", graphs.options(layer), (1, -1, 1, 1)
    integers, scale = _weights(block)
    values = {
        "w": integers,
        "ws": scale.reshape(shape),
        "b": layer.bias.detach().numpy().reshape(shape),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node(operator, ["xq", "w", "xz"], ["sums"], **attributes),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["scale"]),
        helper.make_node("Mul", ["wide", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["c" if block.activation else "y"]),
    ]
    if block.activation:
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    return Graph(nodes, values, "int8-exact")


def static(block: Block, x: Tensor, unsigned: bool = False) -> Graph:
    """Scales known beforehand, also that of a convolution's output, from zero on because of its ReLU.

    With ``unsigned`` weights, around 128, ONNX Runtime's sums are exact without VNNI too.
    """
    layer = block.layer
    assert isinstance(layer, Layer) and layer.bias is not None
    integers, scale = _weights(block)
    zeros = np.zeros(len(scale), np.int8)
    if unsigned:
        integers, zeros = (
            (integers.astype(np.int16) + 128).astype(np.uint8),
            np.full(len(scale), 128, np.uint8),
        )
    low, high = float(x.min()), float(x.max())
    x_scale = max((high - low) / 255, 1e-12)
    values = {
        "xs": np.float32(x_scale),
        "xz": np.uint8(round(-low / x_scale)),
        "wq": integers,
        "ws": scale,
        "wz": zeros,  # without zeros of its own, ONNX Runtime leaves a Gemm in fp32
        "bq": np.round(layer.bias.detach().numpy() / (x_scale * scale)).astype(np.int32),
        "bs": np.float32(x_scale) * scale,
        "bz": np.zeros(len(scale), np.int32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node(
            "DequantizeLinear", ["wq", "ws", "wz"], ["w"], axis=1 if isinstance(layer, nn.Linear) else 0
        ),
        helper.make_node("DequantizeLinear", ["bq", "bs", "bz"], ["b"], axis=0),
    ]
    if isinstance(layer, nn.Linear):
        nodes.append(helper.make_node("Gemm", ["xd", "w", "b"], ["y"]))
    else:
        values |= {"ys": np.float32(max(float(block(x).max()) / 255, 1e-12)), "yz": np.uint8(0)}
        nodes += [
            helper.make_node("Conv", ["xd", "w", "b"], ["c"], **graphs.options(layer)),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("QuantizeLinear", ["r", "ys", "yz"], ["yq"]),
            helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
        ]
    return Graph(nodes, {name: np.asarray(value) for name, value in values.items()}, "int8-exact")


def _weights(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights as the operator wants them, and the float32 scale [out] of each output."""
    assert isinstance(block.layer, Layer)
    weight = block.layer.weight.detach()
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
    integers = (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
    if isinstance(block.layer, nn.Linear):
        integers = integers.t()
    return integers.contiguous().numpy(), scale.numpy()
