"""Everything that computes the same layer: our operators, torch, oneDNN, torch.compile, ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from leanmark_kernels import packing
from leanmark_kernels.convert.block import Block
from leanmark_kernels.convert.rows import ROWS

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Contender:
    """``call`` runs it once, ``output`` gives its result; ``ours`` are held against the libraries.

    ``weights`` is how they are stored, ``bytes`` how much of them is read.
    """

    name: str
    call: Call
    output: Callable[[], Tensor]
    weights: str = "fp32"
    ours: bool = False
    bytes: int = 0


def rows_of_convert(block: Block, x: Tensor) -> Iterator[Contender]:
    """Every row of the table of ``leanmark_kernels.convert`` that can compute ``block``, any weights."""
    row_major = x.contiguous()
    for row in ROWS:
        if not isinstance(block.layer, row.layer) or row.why_not(block.layer) is not None:
            continue
        plain = row.name == "torch"  # with its own layout outside too: what torch does by itself
        module = (block if plain else row.build(block, tuple(x.shape))).eval()
        input = row_major if plain else x

        def call(module: nn.Module = module, input: Tensor = input) -> Tensor:
            output: Tensor = module(input)
            return output

        stored = [*module.parameters(), *module.buffers()]
        yield Contender(
            row.name, call, call, row.weights, row.operator is not None, sum(one.nbytes for one in stored)
        )


def compiled(block: Block, x: Tensor) -> Contender:
    """torch.compile with weights frozen, which lets it prepack them; one shape."""
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True):
        function = torch.compile(block, dynamic=False)
        function(x)

    def call() -> Tensor:
        output: Tensor = function(x)
        return output

    return Contender("torch.compile", call, call)


def onnxruntime(block: Block, x: Tensor) -> Contender:
    """The layer in fp32."""
    layer = block.layer
    assert layer.bias is not None
    values = {"w": layer.weight.detach().numpy(), "b": layer.bias.detach().numpy()}
    if isinstance(layer, nn.Linear):
        return bound(
            "ONNX Runtime", [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], x, block, values
        )
    pads = [*layer.padding, *layer.padding]
    options: dict[str, Any] = {"pads": pads, "strides": list(layer.stride), "group": layer.groups}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], **options),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    return bound("ONNX Runtime", nodes, x, block, values)


def weight_only(block: Block, x: Tensor) -> Iterator[Contender]:
    """The libraries' linear layers with weights of 8 and 4 bits."""
    linear = block.layer
    assert isinstance(linear, nn.Linear)
    weight, bias = linear.weight.detach(), linear.bias.detach()
    integers, scale = packing.quantize_rows(weight)
    x16, scale16, bias16 = x.bfloat16(), scale.bfloat16(), bias.bfloat16()

    def torch_w8() -> Tensor:
        return torch._weight_int8pack_mm(x16, integers, scale16).add_(bias16).float()

    yield Contender("torch w8 (bf16)", torch_w8, torch_w8, "w8")
    for bits, block_size in ((8, 128), (4, 32)):
        if linear.in_features % block_size == 0:
            yield _nbits(block, x, bits, block_size)


def _nbits(block: Block, x: Tensor, bits: int, block_size: int) -> Contender:
    """MatMulNBits at accuracy level 4, its fastest: 8-bit activations."""
    linear = block.layer
    groups = linear.weight.detach().view(linear.out_features, -1, block_size)
    most = 2 ** (bits - 1) - 1
    scale = groups.abs().amax(-1).clamp(min=1e-12) / most
    levels = ((groups / scale[..., None]).round() + most + 1).to(torch.uint8)
    packed = levels if bits == 8 else levels[..., ::2] | levels[..., 1::2] << 4
    values = {"w": packed.numpy(), "s": scale.flatten().numpy(), "b": linear.bias.detach().numpy()}
    sizes = {"K": linear.in_features, "N": linear.out_features, "bits": bits, "block_size": block_size}
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s", "", "", "b"], ["y"], domain="com.microsoft", accuracy_level=4, **sizes
    )
    return bound(f"ONNX Runtime w{bits}a8", [node], x, block, values, "w8" if bits == 8 else "w4a8")


def bound(
    name: str,
    nodes: Sequence[object],
    x: Tensor,
    block: Block,
    values: dict[str, np.ndarray],
    weights: str = "fp32",
) -> Contender:
    """A session with constant weights, input and output bound to fixed buffers."""
    shape = tuple(block(x).shape)
    graph = helper.make_graph(
        list(nodes),
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, key) for key, array in values.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Or its idle threads would keep the cores from everyone else's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
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

    return Contender(name, call, output, weights, bytes=sum(array.nbytes for array in values.values()))
