"""Every name a user can type, as strings. Importing this imports nothing else of leanmark's making.

Third parties add rows through entry points in the group ``leanmark.<kind>``, for example::

    [project.entry-points."leanmark.workloads"]
    resnet18 = "my_package.workloads:ResNet18"
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from leanmark.errors import UnknownName, UsageError

Kind = Literal["workloads", "techniques", "backends", "devices", "meters", "outputs"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Row:
    """``target`` is ``module:attribute``; ``summary`` is one line for people."""

    target: str
    summary: str


_ROWS: Mapping[Kind, Mapping[str, Row]] = {
    "workloads": {
        "cnn": Row("leanmark.workloads.cnn:Cnn", "small residual network, 8x8 digits"),
        "mlp": Row("leanmark.workloads.mlp:Mlp", "multilayer perceptron, 8x8 digits"),
        "lstm": Row("leanmark.workloads.lstm:Lstm", "LSTM over the rows of a digit"),
        "transformer": Row("leanmark.workloads.transformer:Transformer", "encoder over the rows of a digit"),
        "resnet18": Row("leanmark.workloads.resnet:ResNet18", "ResNet-18 at 224, random weights"),
        "resnet50": Row("leanmark.workloads.resnet:ResNet50", "ResNet-50 at 224, random weights"),
        "mobilenet_v2": Row("leanmark.workloads.mobilenet:MobileNetV2", "MobileNetV2 at 224, random weights"),
        "bert": Row(
            "leanmark.workloads.encoder:BertBase", "encoder of BERT-base, 128 tokens, random weights"
        ),
        "gpt2-prefill": Row(
            "leanmark.workloads.decoder:Gpt2Prefill", "GPT-2 reads 512 tokens, random weights"
        ),
        "gpt2-decode": Row(
            "leanmark.workloads.decoder:Gpt2Decode", "GPT-2 says one token after 512, random weights"
        ),
        "op": Row(
            "leanmark.workloads.operator:Operator",
            "one operator: op:conv3x3-64x56, op:depthwise3x3-384x14, op:linear-1024x4096",
        ),
        "noop": Row("leanmark.workloads.noop:Noop", "nothing at all: what leanmark itself costs"),
    },
    "techniques": {
        "prune": Row("leanmark.techniques.prune:Prune", "structured pruning (DepGraph), then fine-tuning"),
        "int8": Row("leanmark.techniques.int8:Int8", "8-bit post-training quantization (ONNX Runtime)"),
        "bf16": Row("leanmark.techniques.bf16:Bf16", "bfloat16 autocast"),
        "distill": Row("leanmark.techniques.distill:Distill", "a smaller student taught by the baseline"),
        "tf32": Row("leanmark.techniques.tf32:Tf32", "float32 products with 10 bits of mantissa (CUDA)"),
        "fp16": Row("leanmark.techniques.fp16:Fp16", "float16 autocast, loss scaling in training (CUDA)"),
        "channels_last": Row("leanmark.techniques.channels_last:ChannelsLast", "images as NHWC"),
        "compile": Row("leanmark.techniques.compiled:Compile", "torch.compile, for one batch size"),
        "cuda_graphs": Row("leanmark.techniques.cuda_graphs:CudaGraphs", "the step replayed in one launch"),
        "fused_optimizer": Row("leanmark.techniques.fused_optimizer:FusedOptimizer", "all updates in one"),
        "checkpointing": Row(
            "leanmark.techniques.checkpointing:Checkpointing", "activations computed again, not kept"
        ),
        "fp8": Row("leanmark.techniques.torchao_weights:Fp8", "8-bit floats (torchao, CUDA)"),
        "int8wo": Row("leanmark.techniques.torchao_weights:Int8Weights", "8-bit weights (torchao)"),
        "int4wo": Row("leanmark.techniques.torchao_weights:Int4Weights", "4-bit weights (torchao, CUDA)"),
        "int8dq": Row("leanmark.techniques.torchao_weights:Int8Dynamic", "8-bit dynamic (torchao)"),
        "sparse24": Row("leanmark.techniques.sparse24:Sparse24", "two of four weights (CUDA)"),
        "kernels": Row("leanmark.techniques.kernels:Kernels", "leanmark's own fp32 operators where faster"),
        "w8": Row("leanmark.techniques.kernels:W8", "8-bit weights, fp32 arithmetic (leanmark's operators)"),
        "w4": Row("leanmark.techniques.kernels:W4", "4-bit weights, bfloat16 activations (the same, CUDA)"),
        "w4a8": Row("leanmark.techniques.kernels:W4A8", "4-bit weights, 8-bit activations (the same)"),
        "int8-exact": Row("leanmark.techniques.kernels:Int8Exact", "8 bits without saturation (the same)"),
        "sparse": Row("leanmark.techniques.sparse:Sparse", "weights set to zero and skipped (the same)"),
    },
    "backends": {
        "eager": Row("leanmark.backends.eager:Eager", "PyTorch, operator by operator"),
        "onnxruntime": Row(
            "leanmark.backends.onnxruntime:OnnxRuntime", "ONNX Runtime, all graph optimisations"
        ),
        "openvino": Row("leanmark.backends.openvino:OpenVino", "OpenVINO in float32, on request"),
    },
    "devices": {
        "cpu": Row("leanmark.devices.cpu:Cpu", "the processor, pinned to chosen cores"),
        "cuda": Row("leanmark.devices.cuda:Cuda", "an NVIDIA GPU; cuda:N is the N-th of nvidia-smi"),
    },
    "meters": {
        "wall": Row("leanmark.meters.wall:Wall", "monotonic wall clock"),
        "cpu_time": Row("leanmark.meters.cpu_time:CpuTime", "CPU time of this process"),
        "host_memory": Row("leanmark.meters.host_memory:HostMemory", "peak resident memory (VmHWM, reset)"),
        "rapl": Row("leanmark.meters.rapl:Rapl", "energy of processor and memory (RAPL, powercap)"),
        "perf_energy": Row("leanmark.meters.perf_energy:PerfEnergy", "the same through perf's power events"),
        "nvml_energy": Row("leanmark.meters.nvml_energy:NvmlEnergy", "energy counter of an NVIDIA GPU"),
        "nvml_power": Row("leanmark.meters.nvml_power:NvmlPower", "sampled power of an NVIDIA GPU"),
        "instructions": Row(
            "leanmark.meters.instructions:Instructions", "instructions executed (perf_event_open)"
        ),
        "codecarbon": Row(
            "leanmark.meters.codecarbon:CodeCarbon", "energy by codecarbon's load model (estimate)"
        ),
    },
    "outputs": {
        "terminal": Row("leanmark.report.terminal:render", "tables for people"),
        "markdown": Row("leanmark.report.markdown:render", "summary file"),
        "html": Row("leanmark.report.html:render", "one self-contained page"),
        "csv": Row("leanmark.report.tidy_csv:render", "a line for each case and metric"),
        "github-action-benchmark": Row(
            "leanmark.report.github_action_benchmark:render", "JSON array, smaller is better"
        ),
        "bencher": Row("leanmark.report.bencher:render", "Bencher Metric Format, JSON"),
        "prometheus": Row(
            "leanmark.report.prometheus:render", "text for a textfile collector or Pushgateway"
        ),
    },
}


def rows(kind: Kind) -> dict[str, Row]:
    """All rows of ``kind``: leanmark's own, then those of installed packages."""
    own = _ROWS[kind]
    return {**own, **{name: row for name, row in _installed(kind).items() if name not in own}}


@cache
def _installed(kind: Kind) -> dict[str, Row]:
    """Looked up once: it reads the metadata of every installed package."""
    return {
        entry.name: Row(entry.value, f"from {entry.module.partition('.')[0]}")
        for entry in entry_points(group=f"leanmark.{kind}")
    }


def load(kind: Kind, name: str) -> Any:
    """The object behind ``name``.

    Raises:
        UnknownName: no row has that name.
    """
    known = rows(kind)
    if name not in known:
        raise UnknownName(kind.removesuffix("s"), name, known)
    return load_target(known[name].target)


def load_target(target: str) -> Any:
    """Import ``module:attribute``."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_own(target: str) -> Any:
    """Import a user's ``module:attribute``, from installed packages or the current folder.

    Raises:
        UsageError: there is no such module or attribute, or the module cannot be imported.
    """
    here = search_here()
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"'{target}' cannot be imported from {here}: {error}") from error


def search_here() -> str:
    """Let modules be imported from the current folder, and return it."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a user's folder must not shadow installed packages
    return here
