"""NVIDIA GPUs as their driver describes them, without torch: which there are, and which one is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from leanmark.devices.base import Accelerator, Device
from leanmark.errors import MeterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """``index`` is that of ``nvidia-smi``, which need not be that of CUDA: ``uuid`` identifies."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    capability: str
    driver: str


class Cuda(Device):
    """The GPU with this ``uuid``; without one, the first that may be used."""

    def __init__(self, uuid: str = "") -> None:
        self._uuid = uuid

    def unavailable(self) -> str | None:
        try:
            boards = visible()
        except MeterError as error:
            return str(error)
        if not boards:
            return "CUDA_VISIBLE_DEVICES allows no GPU"
        return _no_cuda_in_torch()

    def describe(self) -> Mapping[str, str | int | float | None]:
        board = next(one for one in boards() if not self._uuid or one.uuid == self._uuid)
        return {
            "gpu": board.name,
            "gpu_memory_gib": round(board.memory_bytes / 2**30),
            "gpu_capability": board.capability,
        }

    def accelerator(self) -> Accelerator:
        from leanmark.devices.torch_cuda import TorchCuda

        return TorchCuda()


def boards() -> tuple[Board, ...]:
    """All GPUs of this machine.

    Raises:
        MeterError: no driver answers.
    """
    if find_spec("pynvml") is None:
        raise MeterError("the package nvidia-ml-py is not installed")
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise MeterError(f"no NVIDIA driver answers: {error}") from error
    try:
        return tuple(_boards(pynvml))
    except pynvml.NVMLError as error:
        raise MeterError(f"the NVIDIA driver does not say what GPUs there are: {error}") from error
    finally:
        pynvml.nvmlShutdown()


def visible() -> tuple[Board, ...]:
    """Those that ``CUDA_VISIBLE_DEVICES`` leaves, in its order.

    Raises:
        MeterError: no driver answers.
    """
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    return _allowed(boards(), allowed.split(",")) if allowed is not None else boards()


def _boards(nvml: Any) -> Iterator[Board]:
    driver = nvml.nvmlSystemGetDriverVersion()
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        yield Board(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=nvml.nvmlDeviceGetName(handle),
            memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
            capability=f"{major}.{minor}",
            driver=driver,
        )


def _allowed(found: Sequence[Board], names: Sequence[str]) -> tuple[Board, ...]:
    """As CUDA does: what follows the first name that is no GPU is not seen. A UUID may be cut short."""
    allowed = []
    for name in (text.strip() for text in names):
        match = [one for one in found if name == str(one.index) or (name and one.uuid.startswith(name))]
        if len(match) != 1:
            break
        allowed += match
    return tuple(allowed)


def _no_cuda_in_torch() -> str | None:
    try:
        installed = version("torch")
    except PackageNotFoundError:
        return "PyTorch is not installed: pip install torch"
    if installed.endswith("+cpu"):
        return f"PyTorch {installed} is built without CUDA: install it from https://download.pytorch.org/whl"
    return None
