"""ONNX Runtime's 8-bit layers. Without VNNI their sums can saturate: the error of the table would tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from kernel_table.contenders import Contender, bound
from leanmark_kernels.convert.block import Block

Values = dict[str, np.ndarray]


def rivals(block: Block, x: Tensor) -> Iterator[Contender]:
    """Activations quantised in every call, and, for a convolution, with a scale known beforehand."""
    layer = block.layer
    if isinstance(layer, nn.Linear):
        yield _dynamic(block, x, "MatMulInteger", {}, (1, -1))
        return
    pads = [*layer.padding, *layer.padding]
    options = {"pads": pads, "strides": list(layer.stride), "group": layer.groups}
    yield _dynamic(block, x, "ConvInteger", options, (1, -1, 1, 1))
    yield _static(block, x, options)


def _dynamic(
    block: Block, x: Tensor, operator: str, options: Mapping[str, Any], shape: tuple[int, ...]
) -> Contender:
    integers, scale = _weights(block)
    values = {
        "w": integers,
        "ws": scale.reshape(shape),
        "b": block.layer.bias.detach().numpy().reshape(shape),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node(operator, ["xq", "w", "xz"], ["sums"], **options),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xs", "ws"], ["scale"]),
        helper.make_node("Mul", ["wide", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["c" if block.activation else "y"]),
    ]
    if block.activation:
        nodes.append(helper.make_node("Relu", ["c"], ["y"]))
    return bound("ONNX Runtime int8 dynamic", nodes, x, block, values, "int8-exact")


def _static(block: Block, x: Tensor, options: Mapping[str, Any]) -> Contender:
    """The convolution's output is quantised too: with ReLU, from zero on."""
    integers, scale = _weights(block)
    low, high = float(x.min()), float(x.max())
    x_scale = max((high - low) / 255, 1e-12)
    y_scale = max(float(block(x).max()) / 255, 1e-12)
    bias = np.round(block.layer.bias.detach().numpy() / (x_scale * scale)).astype(np.int32)
    values = {
        "xs": np.float32(x_scale),
        "xz": np.uint8(round(-low / x_scale)),
        "w": integers,
        "ws": scale,
        "wz": np.zeros(len(scale), np.int8),
        "ys": np.float32(y_scale),
        "yz": np.uint8(0),
        "b": bias,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node(
            "QLinearConv", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["yq"], **options
        ),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return bound("ONNX Runtime int8 static", nodes, x, block, arrays, "int8-exact")


def _weights(block: Block) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights as the operator wants them, and the float32 scale [out] of each output."""
    weight = block.layer.weight.detach()
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
    integers = (weight / scale.reshape(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
    if isinstance(block.layer, nn.Linear):
        integers = integers.t()
    return integers.contiguous().numpy(), scale.numpy()
