"""Reads what ``machine.gpu_disturbance`` judges, from NVIDIA's management library, and what is fixed.

Read between rounds, not within: a question to the driver takes locks that a launch may have to wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leanmark.errors import MeterError
from leanmark.machine.gpu_disturbance import GpuSample, foreign
from leanmark.meters.nvml import is_ours


class GpuProbe:
    """The board ``uuid``; what it does not tell is ``None``.

    Raises:
        MeterError: there is no driver, or no such board.
    """

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            raise MeterError(f"{uuid}: {error}") from error

    def close(self) -> None:
        self._nvml.nvmlShutdown()

    def read(self) -> GpuSample:
        nvml = self._nvml
        return GpuSample(
            gpu_reasons=self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons),
            gpu_thermal_s=self._held_s(nvml.NVML_PERF_POLICY_THERMAL),
            gpu_power_s=self._held_s(nvml.NVML_PERF_POLICY_POWER),
            gpu_clock_hz=_scaled(self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM), 1e6),
            gpu_memory_clock_hz=_scaled(self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM), 1e6),
            gpu_temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            gpu_limit_w=_scaled(self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit), 1e-3),
            gpu_ecc_errors=self._ask(
                nvml.nvmlDeviceGetTotalEccErrors,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            gpu_foreign=self._foreign(),
        )

    def conditions(self) -> Mapping[str, str | int | float | bool | None]:
        """What a reader of the numbers should know and no round changes."""
        nvml, now = self._nvml, self.read()
        modes = {
            "gpu_ecc": self._ask(nvml.nvmlDeviceGetEccMode),
            "gpu_mig": self._ask(nvml.nvmlDeviceGetMigMode),
        }
        return {
            "gpu_limit_w": now.gpu_limit_w,
            "gpu_clock_hz": now.gpu_clock_hz,
            "gpu_memory_clock_hz": now.gpu_memory_clock_hz,
            "gpu_temperature_c": now.gpu_temperature_c,
            "gpu_foreign_processes": now.gpu_foreign,
            "gpu_persistence": self._ask(nvml.nvmlDeviceGetPersistenceMode),
            **{name: None if mode is None else bool(mode[0]) for name, mode in modes.items()},
        }

    def _held_s(self, policy: int) -> float | None:
        found = self._ask(self._nvml.nvmlDeviceGetViolationStatus, policy)
        return None if found is None else found.violationTime * 1e-9

    def _foreign(self) -> int | None:
        running = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses_v3)
        return None if running is None else foreign(is_ours(one.pid) for one in running)

    def _ask(self, question: Callable[..., Any], *arguments: int) -> Any:
        try:
            return question(self._handle, *arguments)
        except self._nvml.NVMLError:  # many boards leave many questions open: unobserved, not fine
            return None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
