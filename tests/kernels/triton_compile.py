"""Compiles launches for a GPU that is not there, and reads off the result what can be known in advance."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from triton_machine_code import MachineCode, machine_code

from leanmark_kernels.triton.configuration import Launch

POINTER = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.int32: "i32",
}
ALIGNED = [["tt.divisibility", 16]]

TENSOR_CORE = ("mma.sync", "wgmma.mma_async", "tcgen05.mma")
"""What multiplies matrices, in PTX, on Ampere, Hopper and Blackwell; the latter also have the former."""

ASYNCHRONOUS = ("cp.async.cg", "cp.async.ca", "cp.async.bulk.tensor")
"""What copies to shared memory beside the arithmetic, the last by tensor descriptor."""

WIDE_LOADS = ("ld.global.v4",)
"""What loads 16 bytes a thread."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one launch is made of. Registers that spill have their place in ``stack_bytes``, per thread.

    ``counts`` are those of PTX.
    """

    shared_bytes: int
    registers: int
    stack_bytes: int
    counts: Mapping[str, int]
    code: MachineCode


def compile_launch(launch: Launch, capability: tuple[int, int]) -> Compiled:
    """``launch`` compiled for ``capability`` as its first call there would be.

    Its tensors may be on ``meta``. Raises whatever Triton raises for code that it cannot compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = launch.function.arg_names
    signature = {name: signature_of(launch.arguments.get(name)) for name in names}
    compiled_in = {name: value for name, value in launch.arguments.items() if is_constant(value)}
    constants = {**launch.compiled_in(), **compiled_in}
    attributes = {
        (place,): ALIGNED for place, name in enumerate(names) if is_aligned(launch.arguments.get(name))
    }
    source = ASTSource(launch.function, signature, constants, attributes)
    major, minor = capability
    target = GPUTarget("cuda", 10 * major + minor, 32)
    kernel = triton.compile(source, target=target, options=launch.options())
    return inspect(kernel.asm["ptx"], kernel.asm["cubin"], kernel.metadata.shared)


def signature_of(value: Any) -> str:
    """How Triton names the type of an argument; what is no tensor and no integer is a constant."""
    if isinstance(value, Tensor):
        return f"*{POINTER[value.dtype]}"
    if isinstance(value, int) and not is_constant(value):
        return "i32"
    if hasattr(value, "block_shape"):
        return f"tensordesc<{POINTER[value.base.dtype]}{list(value.block_shape)}>"
    return "constexpr"


def is_constant(value: Any) -> bool:
    """Whether Triton will compile ``value`` in at the first call: sizes of 1, and what is left out."""
    return value is None or (isinstance(value, int) and value == 1)


def is_aligned(value: Any) -> bool:
    """Whether Triton will see at the first call that ``value`` is a multiple of 16."""
    return isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0)


def inspect(ptx: str, cubin: bytes, shared_bytes: int) -> Compiled:
    """Counts instructions in ``ptx``, and reads off ``cubin`` what the assembler made of it."""
    text = disassembled(cubin)
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump said nothing of registers:\n{text[:500]}")
    counts = {name: ptx.count(name) for name in (*TENSOR_CORE, *ASYNCHRONOUS, *WIDE_LOADS)}
    return Compiled(shared_bytes, int(usage[1]), int(usage[2]), counts, machine_code(text))


def disassembled(cubin: bytes) -> str:
    """What the ``cuobjdump`` of Triton's wheel prints of the registers and the code of ``cubin``."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", "-sass", file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
