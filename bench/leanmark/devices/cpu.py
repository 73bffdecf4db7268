"""The processor."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from leanmark.devices.base import Device
from leanmark.protocol.process import allowed_cores

_INSTRUCTION_SETS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
    "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip
"""Those that decide which kernels the libraries choose, as Linux spells them."""


class Cpu(Device):
    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def unavailable(self) -> str | None:
        return None

    def describe(self) -> Mapping[str, str | int | float | None]:
        fields = self._first_processor()
        flags = set((fields.get("flags") or fields.get("Features") or "").split())
        return {
            "cpu": fields.get("model name") or platform.processor() or platform.machine(),
            "cpu_family": fields.get("cpu family"),
            "cpu_model": fields.get("model"),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "cores_allowed": len(allowed_cores()),
            "instruction_sets": " ".join(name for name in _INSTRUCTION_SETS if name in flags) or None,
            "memory_gib": self._memory_gib(),
        }

    def _first_processor(self) -> dict[str, str]:
        path = self._proc / "cpuinfo"
        if not path.exists():
            return {}
        block = path.read_text().split("\n\n", 1)[0]
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        return {key.strip(): value.strip() for key, value in pairs}

    def _memory_gib(self) -> int | None:
        path = self._proc / "meminfo"
        if not path.exists():
            return None
        kilobytes = int(path.read_text().split("MemTotal:", 1)[1].split()[0])
        return round(kilobytes / 2**20)
