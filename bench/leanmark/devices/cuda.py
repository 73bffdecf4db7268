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
    """``index`` is that of ``nvidia-smi``, which need not be that of CUDA: ``uuid`` identifies.

    ``slices`` are the UUIDs of those that MIG divides it into; ``divided`` also holds before there are any.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    capability: str
    driver: str
    divided: bool = False
    slices: tuple[str, ...] = ()

    def why_not(self) -> str | None:
        """Why it cannot be measured on, or ``None``."""
        if not self.divided:
            return None
        return f"{self.name} ({self.uuid}) is divided by MIG into {len(self.slices)} slices: {_WHOLE}"


_WHOLE = (
    "leanmark measures whole boards, since energy, clocks and temperature are those of all slices together; "
    "choose a board that is not divided"
)


class Cuda(Device):
    """The GPU with this ``uuid``; without one, the first that may be used."""

    def __init__(self, uuid: str = "") -> None:
        self._uuid = uuid

    def unavailable(self) -> str | None:
        try:
            found = visible()
            if not found:
                return _why_none(os.environ.get("CUDA_VISIBLE_DEVICES", ""), boards())
        except MeterError as error:
            return str(error)
        meant = next((one for one in found if self._uuid in ("", one.uuid)), None)
        if meant is None:
            return f"there is no GPU {self._uuid} here, or CUDA_VISIBLE_DEVICES does not allow it"
        return meant.why_not() or _no_cuda_in_torch()

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
        divided = _divided(nvml, handle)
        yield Board(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=nvml.nvmlDeviceGetName(handle),
            memory_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
            capability=f"{major}.{minor}",
            driver=driver,
            divided=divided,
            slices=tuple(_slices(nvml, handle)) if divided else (),
        )


def _divided(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # boards without MIG say so by an error
        return False


def _slices(nvml: Any, handle: Any) -> Iterator[str]:
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            yield nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except nvml.NVMLError:  # this place holds no slice
            continue


def _why_none(allowed: str, found: Sequence[Board]) -> str:
    first = allowed.split(",")[0].strip()
    if not first.startswith("MIG-"):
        return "CUDA_VISIBLE_DEVICES allows no GPU"
    # the names of older drivers hold that of the board: MIG-GPU-.../1/0
    boards = [one for one in found if first in one.slices or first.startswith(f"MIG-{one.uuid}/")]
    board = f" of {boards[0].name} ({boards[0].uuid})" if boards else ""
    return f"{first} is a slice{board}: {_WHOLE}"


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
