#!/usr/bin/env python
"""Our packed operators against the libraries, interleaved in this one process.

usage: kernel_bench.py [--threads N] [--rounds N] [FILTER ...]      e.g. kernel_bench.py conv:64@56 linear

With one thread, time is CPU time of the process, which other users of the machine do not count into; with
more it is wall time. A ratio is the median over the rounds of library / ours, with the 95 % interval of that
median: above 1, ours is faster. It holds for this process. The error is the largest one, relative to the
largest output, against float64; for 16- and 8-bit weights that of the rounding of the weights is in it.

ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 lowers torch, oneDNN and ours to AVX2. ONNX Runtime and MKL
cannot be lowered: on a CPU with AVX-512 they are then ahead by it.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark.statistics.stats import order_statistic_interval
from leanmark_kernels import packed_linear, packing, winograd_conv2d

CONVOLUTIONS = [
    (batch, channels, size)
    for batch in (1, 8)
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))
]
LINEARS = [
    (1, 1024, 1024),
    (1, 4096, 4096),
    (4, 1024, 1024),
    (4, 1024, 4096),
    (8, 1024, 4096),
    (32, 1024, 4096),
]
SLICE_US = 3000.0

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Contender:
    """``call`` runs it once, ``output`` gives its result; libraries are held against ``ours``."""

    name: str
    call: Call
    output: Callable[[], Tensor]
    ours: bool = False


def contender(name: str, compute: Callable[[], Tensor], ours: bool = False) -> Contender:
    return Contender(name, compute, compute, ours)


def onnxruntime_bound(
    nodes: Sequence[object], x: Tensor, shape: Sequence[int], weights: dict[str, np.ndarray]
) -> Contender:
    """A session with constant weights, input and output bound to fixed buffers."""
    graph = helper.make_graph(
        list(nodes),
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
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

    return Contender("ONNX Runtime", call, output)


def convolution(batch: int, channels: int, size: int) -> tuple[list[Contender], Tensor]:
    """3x3, stride 1, padding 1, as many filters as channels, with bias and ReLU."""
    row_major = torch.randn(batch, channels, size, size)
    x = row_major.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5
    weight_last, bias = weight.contiguous(memory_format=torch.channels_last), torch.randn(channels)
    one = [1, 1]
    prepacked = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), one, one, one, 1, list(x.shape))
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    contenders = [
        contender("torch", lambda: F.conv2d(row_major, weight, bias, padding=1).relu_()),
        contender("torch channels_last", lambda: F.conv2d(x, weight_last, bias, padding=1).relu_()),
        contender(
            "oneDNN prepacked",
            lambda: torch.ops.mkldnn._convolution_pointwise(
                x, prepacked, bias, one, one, one, 1, "relu", [], ""
            ),
        ),
        onnxruntime_bound(nodes, row_major, row_major.shape, {"w": weight.numpy(), "b": bias.numpy()}),
    ]
    for tile in (4, 2):
        packed = packing.pack_winograd(weight, tile)
        contenders.append(
            contender(
                f"F({tile}x{tile})",
                lambda packed=packed: winograd_conv2d(x, packed, bias, out_channels=channels, relu=True),
                ours=True,
            )
        )
    return contenders, F.conv2d(x.double(), weight.double(), bias.double(), padding=1).relu()


def linear(rows: int, depth: int, columns: int) -> tuple[list[Contender], Tensor]:
    """With bias, without ReLU; the weight-only kernels of the libraries next to their fp32 ones."""
    x, bias = torch.randn(rows, depth), torch.randn(columns)
    weight = torch.randn(columns, depth) / depth**0.5
    prepacked = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    values = {"w": weight.numpy(), "b": bias.numpy()}
    integers, scale = packing.quantize_rows(weight)
    x16, scale16, bias16 = x.bfloat16(), scale.bfloat16(), bias.bfloat16()
    forms = {
        "fp32": (packing.pack_linear(weight), None),
        "w16": (packing.pack_linear(weight.bfloat16()), None),
        "w8": (packing.pack_linear(integers), scale),
    }
    contenders = [
        contender("torch", lambda: F.linear(x, weight, bias)),
        contender(
            "oneDNN prepacked",
            lambda: torch.ops.mkldnn._linear_pointwise(x, prepacked, bias, "none", [], ""),
        ),
        onnxruntime_bound([node], x, (rows, columns), values),
        contender(
            "torch w8 (bf16)", lambda: torch._weight_int8pack_mm(x16, integers, scale16).add_(bias16).float()
        ),
        onnxruntime_w8(x, integers, scale, bias),
    ]
    contenders += [
        contender(
            name,
            lambda form=form: packed_linear(x, *form, bias, out_features=columns),
            ours=True,
        )
        for name, form in forms.items()
    ]
    return contenders, F.linear(x.double(), weight.double(), bias.double())


def onnxruntime_w8(x: Tensor, integers: Tensor, scale: Tensor, bias: Tensor) -> Contender:
    """MatMulNBits with 8 bits, blocks of 128 and its fastest accuracy level, int8 activations."""
    columns, depth = integers.shape
    blocks = depth // 128
    values = {
        "w": (integers.int() + 128).to(torch.uint8).view(columns, blocks, 128).numpy(),
        "s": scale.repeat_interleave(blocks).numpy(),
        "b": bias.numpy(),
    }
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s", "", "", "b"],
        ["y"],
        domain="com.microsoft",
        **{"K": depth, "N": columns, "bits": 8, "block_size": 128, "accuracy_level": 4},
    )
    found = onnxruntime_bound([node], x, (x.shape[0], columns), values)
    return Contender("ONNX Runtime w8", found.call, found.output)


def measure(contenders: Sequence[Contender], rounds: int) -> dict[str, np.ndarray]:
    """Microseconds per call [rounds], forward and backward in turn."""
    clock = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns

    def timed(call: Call, repeats: int) -> float:
        begin = clock()
        for _ in range(repeats):
            call()
        return (clock() - begin) / repeats / 1e3

    repeats = {}
    for each in contenders:
        each.call()
        quickest = min(timed(each.call, 2) for _ in range(3))
        repeats[each.name] = max(1, round(SLICE_US / max(quickest, 0.5)))
    times: dict[str, list[float]] = {each.name: [] for each in contenders}
    gc.disable()
    for turn in range(rounds):
        for each in contenders if turn % 2 == 0 else contenders[::-1]:
            times[each.name].append(timed(each.call, repeats[each.name]))
    gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def ratio(library: np.ndarray, ours: np.ndarray) -> str:
    interval = order_statistic_interval(np.log(library / ours))
    if interval is None:
        return f"{np.median(library / ours):.2f}"
    low, value, high = (math.exp(each) for each in (interval.low, interval.value, interval.high))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def report(title: str, contenders: Sequence[Contender], exact: Tensor, rounds: int) -> None:
    times = measure(contenders, rounds)
    ours = [each.name for each in contenders if each.ours]
    print(f"\n{title:<24}{'µs':>10}{'error':>10}" + "".join(f"{'/ ' + name:>22}" for name in ours))
    for each in contenders:
        error = float((each.output() - exact).abs().max() / exact.abs().max())
        row = f"{each.name:<24}{np.median(times[each.name]):>10.0f}{error:>10.1e}"
        if not each.ours:
            row += "".join(f"{ratio(times[each.name], times[name]):>22}" for name in ours)
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="only titles that contain one of these")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    print(
        f"ours {leanmark_kernels.instruction_set()}, torch {torch.__version__} "
        f"{torch.backends.cpu.get_cpu_capability()}, onnxruntime {ort.__version__}, "
        f"threads {arguments.threads}, rounds {arguments.rounds}"
    )
    cases: list[tuple[str, Callable[..., tuple[list[Contender], Tensor]], tuple[int, int, int]]] = [
        *((f"conv:{c}@{s} batch {b}", convolution, (b, c, s)) for b, c, s in CONVOLUTIONS),
        *((f"linear:{m},{k},{n}", linear, (m, k, n)) for m, k, n in LINEARS),
    ]
    for title, build, sizes in cases:
        if not arguments.filters or any(word in title for word in arguments.filters):
            report(title, *build(*sizes), arguments.rounds)


if __name__ == "__main__":
    main()
