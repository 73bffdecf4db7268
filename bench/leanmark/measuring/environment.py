"""What a number depends on: the machine and the software (identity), and what disturbed it (conditions)."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from leanmark.devices.cpu import Cpu
from leanmark.devices.cuda import Cuda, boards
from leanmark.devices.gpu_probe import GpuProbe
from leanmark.plan import BACKENDS_ON_REQUEST
from leanmark.record import Environment

_PACKAGES = (
    "leanmark",
    "torch",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "numpy",
    "scikit-learn",
    "codecarbon",
)

_GPU_PACKAGES = ("torchao", "triton")


def collect(root: Path = Path("/"), gpu: str = "", backends: Collection[str] = ()) -> Environment:
    """The environment now, for these ``backends``. ``root`` is where ``proc`` and ``sys`` are looked for.

    With the UUID of a ``gpu``, that and its driver are part of the identity; which one of several equal
    boards it is, is not.
    """
    machine, found = Cpu(root / "proc").describe(), conditions(root)
    # a backend that nobody asked for decides nothing: a record without it stays comparable
    versions = {**software(), **{name: _version(name) for name in BACKENDS_ON_REQUEST if name in backends}}
    if not gpu:
        return Environment(machine=machine, software=versions, conditions=found)
    board = next(one for one in boards() if one.uuid == gpu)
    probe = GpuProbe(gpu)
    try:
        on_gpu = probe.conditions()
    finally:
        probe.close()
    return Environment(
        machine={**machine, **Cuda(gpu).describe()},
        software={
            **versions,
            **{name: _version(name) for name in _GPU_PACKAGES},
            "nvidia_driver": board.driver,
        },
        conditions={**found, **on_gpu, "gpu_uuid": gpu, "gpu_index": board.index},
    )


def software() -> Mapping[str, str | None]:
    """Versions of everything that decides how fast a step is; ``None`` where it is not installed."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: _version(name) for name in _PACKAGES},
    }


def conditions(root: Path = Path("/")) -> Mapping[str, str | int | float | bool | None]:
    """What disturbs measuring; ``None`` means that it could not be read, which is not "fine"."""
    cpu = root / "sys/devices/system/cpu"
    return {
        "kernel": platform.release(),
        "governor": _read(cpu / "cpu0/cpufreq/scaling_governor"),
        "frequency_khz": _integer(cpu / "cpu0/cpufreq/scaling_cur_freq"),
        "boost": _read(cpu / "cpufreq/boost"),
        "load_1min": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "cpu_pressure_avg10": _pressure(root / "proc/pressure/cpu"),
        "memory_pressure_avg10": _pressure(root / "proc/pressure/memory"),
        "steal_ticks": _steal(root / "proc/stat"),
        "virtual_machine": _hypervisor(root / "proc/cpuinfo"),
        "transparent_hugepages": _read(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        "address_randomisation": _integer(root / "proc/sys/kernel/randomize_va_space"),
    }


def commit(folder: Path) -> str | None:
    """The git commit of ``folder``, marked ``-dirty`` with uncommitted changes; ``None`` outside git."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git here
        return None
    return result.stdout.strip() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _integer(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text and text.lstrip("-").isdigit() else None


def _pressure(path: Path) -> float | None:
    text = _read(path)
    return float(text.split("avg10=", 1)[1].split()[0]) if text and "avg10=" in text else None


def _steal(path: Path) -> int | None:
    text = _read(path)
    fields = text.splitlines()[0].split() if text else []
    return int(fields[8]) if len(fields) > 8 else None


def _hypervisor(path: Path) -> bool | None:
    text = _read(path)
    return None if text is None else " hypervisor" in text
