"""One NVIDIA GPU through its management library. Every failure is a ``MeterError`` that names the GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leanmark.errors import MeterError
from leanmark.record import Finding

_MODULES = ("GH200", "GB200", "GB300", "GB10")
"""Boards of one package with their processor; there the energy counter is that of the whole module."""


def visible_device() -> int | str:
    """What CUDA calls device 0 here: an NVML index, a UUID, or the name of a MIG slice."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    return int(first) if first.isdecimal() else first


def is_ours(process: int) -> bool:
    """Whether ``process`` is this one or descends from it. Those that cannot be seen are not."""
    while process > 1:
        if process == os.getpid():
            return True
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return False
        process = int(stat.rpartition(")")[2].split()[1])
    return False


class Gpu:
    """``device`` is an NVML index or a UUID; by default the first that CUDA would use."""

    def __init__(self, device: int | str | None = None, *, is_ours: Callable[[int], bool] = is_ours) -> None:
        self.label = "GPU"
        self._device = device
        self._is_ours = is_ours
        self._connected = False
        self._ours: set[int] = set()
        self._scope: tuple[Finding, ...] | None = None
        self._limit_w: float | None = None
        self._handle: Any = None
        self._nvml: Any = None

    def open(self) -> None:
        """Connect to the driver, once.

        Raises:
            MeterError: there is no driver, no such GPU, or the device is a MIG slice.
        """
        if self._handle is not None:
            return
        if find_spec("pynvml") is None:
            raise MeterError("the package nvidia-ml-py is not installed")
        import pynvml

        self._nvml = pynvml
        device = visible_device() if self._device is None else self._device
        self.label = f"GPU {device}"
        if isinstance(device, str) and (device.startswith("MIG") or not device):
            raise MeterError(
                f"'{device}' is a slice of a GPU: only the board as a whole has energy"
                if device
                else "CUDA_VISIBLE_DEVICES is empty: no GPU may be used"
            )
        with self._asked("driver"):
            pynvml.nvmlInit()
        self._connected = True
        try:
            self._handle = self._find(device)
            with self._asked("name"):
                self.label = f"GPU {device} ({pynvml.nvmlDeviceGetName(self._handle)})"
        except MeterError:
            self.close()
            raise

    def close(self) -> None:
        """Leave the driver. A GPU that is lost does not hinder that."""
        self._handle = self._scope = self._limit_w = None
        if self._connected:
            self._connected = False
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def energy_mj(self) -> int:
        """Since the driver was loaded, in millijoules."""
        try:  # no context manager: this is called in an open window
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise self._failed("energy counter", error) from error

    def watts(self, fields: Sequence[int], *, module: bool = False) -> list[float | None]:
        """The power sensors ``fields``, read in one call; ``None`` where this GPU has no such sensor.

        ``module`` asks for the power of the whole module, on boards that share one with a processor.
        """
        nvml = self._nvml
        scope = nvml.NVML_POWER_SCOPE_MODULE if module else nvml.NVML_POWER_SCOPE_GPU
        try:
            values = nvml.nvmlDeviceGetFieldValues(self._handle, [(field, scope) for field in fields])
            return [self._power_w(value) for value in values]
        except nvml.NVMLError as error:
            raise self._failed("power", error) from error

    def _power_w(self, value: Any) -> float | None:
        """In watts. The call succeeds although a field in it did not: each has a code of its own."""
        if value.nvmlReturn == self._nvml.NVML_SUCCESS:
            return float(value.value.uiVal) / 1000
        if value.nvmlReturn in (self._nvml.NVML_ERROR_NOT_SUPPORTED, self._nvml.NVML_ERROR_INVALID_ARGUMENT):
            return None  # the second is what a driver says that does not know the field yet
        raise self._nvml.NVMLError(value.nvmlReturn)

    @property
    def counts_module(self) -> bool:
        """Whether the energy counter is that of a whole module: processor, GPU and memory."""
        return any(module in self.label for module in _MODULES)

    def limit_w(self) -> float | None:
        """The power that the board enforced when first asked, ``None`` where it does not say."""
        if self._limit_w is None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._limit_w = float(self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle)) / 1000
        return self._limit_w

    def temperature_c(self) -> float | None:
        """Of the chip, ``None`` where it does not say."""
        try:
            return float(self._nvml.nvmlDeviceGetTemperature(self._handle, self._nvml.NVML_TEMPERATURE_GPU))
        except self._nvml.NVMLError:
            return None

    def findings(self) -> tuple[Finding, ...]:
        """Why the energy of this board may not be that of the work alone."""
        if self._scope is None:
            self._scope = tuple(self._about_scope())
        return (*self._scope, *self._about_others())

    def _about_scope(self) -> Iterator[Finding]:
        if self.counts_module:
            yield Finding(
                code="module-scope",
                message=f"{self.label} counts its whole module: processor, GPU and memory",
            )
        if self._slices():
            yield Finding(
                code="shared-board",
                message=f"{self.label} is divided by MIG: its energy is that of all slices",
            )

    def _about_others(self) -> Iterator[Finding]:
        others = self._foreign_processes()
        if others is None:
            yield Finding(code="shared-gpu", message=f"who else uses {self.label} cannot be seen here")
        elif others:
            yield Finding(
                code="shared-gpu",
                message=f"{others} processes on {self.label} are not leanmark's, or cannot be told apart in "
                "this container; their energy is included",
            )

    def _find(self, device: int | str) -> Any:
        with self._asked("look-up"):
            if isinstance(device, int):
                return self._nvml.nvmlDeviceGetHandleByIndex(device)
            return self._nvml.nvmlDeviceGetHandleByUUID(device)

    def _slices(self) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(self._handle)[0])
        except self._nvml.NVMLError:  # boards without MIG say so by an error
            return False

    def _foreign_processes(self) -> int | None:
        nvml = self._nvml
        refused = nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission, nvml.NVMLError_FunctionNotFound
        with self._asked("list of processes"):
            try:
                running = nvml.nvmlDeviceGetComputeRunningProcesses_v3(self._handle)
            except refused:
                return None
        return sum(not self._known_as_ours(process.pid) for process in running)

    def _known_as_ours(self, process: int) -> bool:
        """What descends from this process does so until it ends: it is looked up once."""
        if process not in self._ours and self._is_ours(process):
            self._ours.add(process)
        return process in self._ours

    @contextlib.contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> MeterError:
        return MeterError(f"{self.label}: {what}: {error}")
