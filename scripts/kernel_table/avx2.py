"""Holds all libraries to AVX2 on a processor that has more, to measure what a machine without it would see.

torch, oneDNN, MKL and our own operators have variables for it. ONNX Runtime, and OpenVINO in part, ask the
processor: they run from a copy in which its answer is changed, see ``cpuid.c``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

VARIABLES = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch, torch.compile and our own operators
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # torch's oneDNN, and OpenVINO's
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
PACKAGES = ("onnxruntime", "openvino")

CPUID, UD0 = b"\x0f\xa2", b"\x0f\xff"


@contextmanager
def environment() -> Iterator[Mapping[str, str]]:
    """The variables of a process that is held to AVX2: half a minute, and 0.3 GB in the temporary folder.

    Raises ``RuntimeError`` where a tool is missing, or a library does not ask the processor in this way.
    """
    missing = [tool for tool in ("cc", "objdump", "readelf") if not shutil.which(tool)]
    if missing:
        raise RuntimeError(f"holding libraries to AVX2 needs {', '.join(missing)}: install gcc and binutils")
    with tempfile.TemporaryDirectory(prefix="leanmark-avx2-") as name:
        folder = Path(name)
        answers = folder / "cpuid.so"
        source = Path(__file__).with_name("cpuid.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", answers, source], check=True)
        for package in filter(find_spec, PACKAGES):
            _copy_without_cpuid(package, folder)
        paths = filter(None, (name, os.environ.get("PYTHONPATH")))
        yield {
            **os.environ,
            **VARIABLES,
            "LD_PRELOAD": str(answers),
            "PYTHONPATH": os.pathsep.join(paths),
        }


def _copy_without_cpuid(package: str, folder: Path) -> None:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    copy = folder / package
    shutil.copytree(
        Path(spec.origin).parent, copy, ignore=shutil.ignore_patterns("*_gpu_*", "*_npu_*", "*.h")
    )
    replaced = sum(replace_cpuid(library) for library in copy.rglob("*.so*"))
    if not replaced:
        raise RuntimeError(
            f"no library of {package} asks the processor what it has: it cannot be held to AVX2"
        )


def replace_cpuid(library: Path) -> int:
    """Overwrite every CPUID instruction of an ELF file with UD0; how many there were."""
    content = bytearray(library.read_bytes())
    if CPUID not in content:
        return 0
    # not any two such bytes: where instructions begin takes a disassembler
    text = _output("objdump", "--disassemble", "--no-show-raw-insn", library)
    addresses = [int(found, 16) for found in re.findall(r"^\s*([0-9a-f]+):\s+cpuid\s*$", text, re.MULTILINE)]
    headers = _output("readelf", "--program-headers", "--wide", library)
    loaded = [
        [int(number, 16) for number in found]
        for found in re.findall(r"^\s*LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+)", headers, re.MULTILINE)
    ]
    for address in addresses:
        [at] = [address - start + offset for offset, start, size in loaded if start <= address < start + size]
        assert content[at : at + 2] == CPUID, f"{library.name} has no CPUID at {address:#x}"
        content[at : at + 2] = UD0
    library.write_bytes(content)
    return len(addresses)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
