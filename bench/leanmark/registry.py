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
        "noop": Row("leanmark.workloads.noop:Noop", "nothing at all: what leanmark itself costs"),
    },
    "techniques": {
        "prune": Row("leanmark.techniques.prune:Prune", "structured pruning (DepGraph), then fine-tuning"),
        "int8": Row("leanmark.techniques.int8:Int8", "8-bit post-training quantization (ONNX Runtime)"),
        "bf16": Row("leanmark.techniques.bf16:Bf16", "bfloat16 autocast"),
        "distill": Row("leanmark.techniques.distill:Distill", "a smaller student taught by the baseline"),
    },
    "backends": {
        "eager": Row("leanmark.backends.eager:Eager", "PyTorch, operator by operator"),
        "onnxruntime": Row(
            "leanmark.backends.onnxruntime:OnnxRuntime", "ONNX Runtime, all graph optimisations"
        ),
    },
    "devices": {
        "cpu": Row("leanmark.devices.cpu:Cpu", "the processor, pinned to chosen cores"),
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
    },
}


def rows(kind: Kind) -> dict[str, Row]:
    """All rows of ``kind``: leanmark's own, then those of installed packages."""
    found = dict(_ROWS[kind])
    for entry in entry_points(group=f"leanmark.{kind}"):
        found.setdefault(entry.name, Row(entry.value, f"from {entry.module.partition('.')[0]}"))
    return found


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
