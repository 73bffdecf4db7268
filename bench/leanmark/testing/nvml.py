"""NVIDIA's management library with GPUs whose truth is known, in pure Python.

``pynvml`` and everything that uses it call it like the real one: see ``FakeNvml.installed``.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from leanmark.testing.power import Power, energy_j

INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, INSUFFICIENT_SIZE, LOST = 2, 3, 4, 7, 15
"""Some return codes of NVML."""

_OK, _NOT_FOUND = 0, 6
_POWER_AVERAGE, _POWER_INSTANT = 185, 186
_MODULE_SCOPE = 1
_UNSIGNED_INT = 1
_MOST_GPUS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFault:
    """What happens between two times.

    ``error`` makes the calls named in ``calls`` (all where empty) return ``code``, and a field that is named
    there, such as ``field 186``, fail in a call that does not; ``stuck`` holds the energy counter; ``reset``
    starts it again from 0.
    """

    kind: Literal["error", "stuck", "reset"]
    code: int = LOST
    calls: tuple[str, ...] = ()
    start_s: float = 0.0
    stop_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGpu:
    """A board that draws ``power``.

    Its counter is the exact integral, published every ``update_s``. Its power readings are published every
    ``power_update_s``: the average over 1 s (none where ``averages`` is false, as on the A100) and the
    "instantaneous" one, which sees only the last ``seen_s`` of that time. ``module_power`` is what a Grace
    module draws as a whole: there the counter is that of the module. ``event_reasons`` are why its clocks
    are what they are, ``slices`` are the UUIDs of those that MIG divides it into, ``held_ns`` how long a
    policy (0 power, 1 heat) held them down. Each call takes ``call_s``.
    """

    power: Power
    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    update_s: float = 0.1
    phase_s: float = 0.0
    power_update_s: float = 0.1
    seen_s: float = 0.025
    averages: bool = True
    module_power: Power | None = None
    limit_w: float = 700.0
    mig: bool = False
    slices: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    event_reasons: int = 0
    held_ns: Mapping[int, int] = field(default_factory=dict)
    clock_mhz: int = 1980
    ecc_errors: int = 0
    call_s: float = 20e-6
    faults: tuple[GpuFault, ...] = ()

    @property
    def counted(self) -> Power:
        return self.module_power or self.power

    def counter_mj(self, now_s: float) -> int:
        at_s, since_s = now_s, 0.0
        for fault in self.faults:
            if fault.kind == "stuck" and fault.start_s <= now_s < fault.stop_s:
                at_s = min(at_s, fault.start_s)
            if fault.kind == "reset" and fault.start_s <= now_s:
                since_s = max(since_s, fault.start_s)
        published_s = max(since_s, _published(at_s, self.update_s, self.phase_s))
        return int(1000 * energy_j(self.counted, since_s, published_s))

    def watts(self, now_s: float, field: int, scope: int) -> float | None:
        """A power reading; ``None`` where this board has no such sensor."""
        power = self.module_power if scope == _MODULE_SCOPE else self.power
        if power is None or (field == _POWER_AVERAGE and not self.averages):
            return None
        until_s = _published(now_s, self.power_update_s, self.phase_s)
        length_s = 1.0 if field == _POWER_AVERAGE else self.seen_s
        return energy_j(power, until_s - length_s, until_s) / length_s

    def error(self, call: str, now_s: float) -> int:
        """What ``call`` returns now, by the faults."""
        for fault in self.faults:
            meant = fault.kind == "error" and (not fault.calls or call in fault.calls)
            if meant and fault.start_s <= now_s < fault.stop_s:
                return fault.code
        return _OK


class FakeNvml:
    """Give it as ``pynvml.nvmlLib``. ``init_error`` is what initialising returns; ``missing`` names symbols
    that this version of the library does not have.
    """

    def __init__(
        self,
        gpus: Sequence[FakeGpu],
        clock: Callable[[], float],
        *,
        init_error: int = _OK,
        missing: frozenset[str] = frozenset(),
    ) -> None:
        self.gpus = list(gpus)
        self._clock = clock
        self._sleep: Callable[[float], None] = getattr(clock, "sleep", lambda seconds: None)
        symbols: dict[str, Callable[..., int]] = {
            "nvmlInitWithFlags": lambda flags: init_error,
            "nvmlShutdown": lambda: _OK,
            "nvmlSystemGetDriverVersion": lambda out, size: _write(out, "570.86"),
            "nvmlDeviceGetCount_v2": lambda out: _give(out, len(self.gpus)),
            "nvmlDeviceGetHandleByIndex_v2": self._by_index,
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._slice,
        }
        for name, answer in _QUESTIONS.items():
            symbols[name] = self._question(name, answer)
        for name, function in symbols.items():
            if name not in missing:
                setattr(self, name, function)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """``pynvml`` talks to this library inside, and to the one it had before after it."""
        import pynvml

        before = pynvml.nvmlLib
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.nvmlLib = self
        try:
            yield
        finally:
            pynvml.nvmlLib = before
            pynvml._nvmlGetFunctionPointer_cache.clear()

    def _by_index(self, index: Any, out: Any) -> int:
        number = index.value if hasattr(index, "value") else index
        if not 0 <= number < len(self.gpus):
            return INVALID_ARGUMENT
        return _give_handle(out, number)

    def _by_uuid(self, uuid: Any, out: Any) -> int:
        wanted = uuid.value if hasattr(uuid, "value") else uuid
        for number, gpu in enumerate(self.gpus):
            if gpu.uuid.encode() == wanted:
                return _give_handle(out, number)
        return _NOT_FOUND

    def _slice(self, handle: Any, index: Any, out: Any) -> int:
        number, place = _number(handle), getattr(index, "value", index)
        if place >= len(self.gpus[number].slices):
            return _NOT_FOUND
        return _give_handle(out, number + _MOST_GPUS * (place + 1))

    def _question(self, name: str, answer: Callable[..., int]) -> Callable[..., int]:
        def ask(handle: Any, *arguments: Any) -> int:
            number = _number(handle)
            if number < 0:
                return INVALID_ARGUMENT
            place, number = divmod(number, _MOST_GPUS)
            gpu = self.gpus[number]
            if place:
                gpu = replace(gpu, uuid=gpu.slices[place - 1])
            self._sleep(gpu.call_s)
            now_s = self._clock()
            return gpu.error(name, now_s) or answer(gpu, now_s, *arguments)

        return ask


def _energy(gpu: FakeGpu, now_s: float, out: Any) -> int:
    return _give(out, gpu.counter_mj(now_s))


def _power(gpu: FakeGpu, now_s: float, out: Any) -> int:
    watts = gpu.watts(now_s, _POWER_AVERAGE if gpu.averages else _POWER_INSTANT, 0)
    return _give(out, round(1000 * (watts or 0.0)))


def _fields(gpu: FakeGpu, now_s: float, count: Any, out: Any) -> int:
    for value in out._obj:
        watts = None
        if value.fieldId in (_POWER_AVERAGE, _POWER_INSTANT):
            watts = gpu.watts(now_s, value.fieldId, value.scopeId)
        failed = gpu.error(f"field {value.fieldId}", now_s)
        value.nvmlReturn = failed or (NOT_SUPPORTED if watts is None else _OK)
        value.valueType = _UNSIGNED_INT
        value.timestamp = int(now_s * 1e6)
        value.value.uiVal = round(1000 * (watts or 0.0))
    return _OK


def _processes(gpu: FakeGpu, now_s: float, count: Any, out: Any) -> int:
    room, count._obj.value = count._obj.value, len(gpu.processes)
    if len(gpu.processes) > room:
        return INSUFFICIENT_SIZE
    for place, process in enumerate(gpu.processes):
        out[place].pid = process
    return _OK


def _mig(gpu: FakeGpu, now_s: float, current: Any, pending: Any) -> int:
    return _give(current, int(gpu.mig)) or _give(pending, int(gpu.mig))


def _held(gpu: FakeGpu, now_s: float, policy: Any, out: Any) -> int:
    out._obj.violationTime = gpu.held_ns.get(getattr(policy, "value", policy), 0)
    return _OK


def _memory(gpu: FakeGpu, now_s: float, out: Any) -> int:
    out._obj.total = out._obj.free = 80 * 2**30
    return _OK


def _utilization(gpu: FakeGpu, now_s: float, out: Any) -> int:
    out._obj.gpu = 100
    return _OK


_QUESTIONS: dict[str, Callable[..., int]] = {
    "nvmlDeviceGetTotalEnergyConsumption": _energy,
    "nvmlDeviceGetPowerUsage": _power,
    "nvmlDeviceGetFieldValues": _fields,
    "nvmlDeviceGetComputeRunningProcesses_v3": _processes,
    "nvmlDeviceGetGraphicsRunningProcesses_v3": _processes,
    "nvmlDeviceGetMigMode": _mig,
    "nvmlDeviceGetMaxMigDeviceCount": lambda gpu, now_s, out: _give(out, 7 if gpu.mig else 0),
    "nvmlDeviceGetMemoryInfo": _memory,
    "nvmlDeviceGetUtilizationRates": _utilization,
    "nvmlDeviceGetName": lambda gpu, now_s, out, size: _write(out, gpu.name),
    "nvmlDeviceGetUUID": lambda gpu, now_s, out, size: _write(out, gpu.uuid),
    "nvmlDeviceGetEnforcedPowerLimit": lambda gpu, now_s, out: _give(out, round(1000 * gpu.limit_w)),
    "nvmlDeviceGetTemperature": lambda gpu, now_s, sensor, out: _give(out, 60),
    "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu, now_s, out: _give(out, gpu.event_reasons),
    "nvmlDeviceGetViolationStatus": _held,
    "nvmlDeviceGetClockInfo": lambda gpu, now_s, kind, out: _give(out, gpu.clock_mhz),
    "nvmlDeviceGetTotalEccErrors": lambda gpu, now_s, kind, since, out: _give(out, gpu.ecc_errors),
    "nvmlDeviceGetEccMode": lambda gpu, now_s, now, pending: _give(now, 1) or _give(pending, 1),
    "nvmlDeviceGetPersistenceMode": lambda gpu, now_s, out: _give(out, 1),
    "nvmlDeviceGetCudaComputeCapability": lambda gpu, now_s, major, minor: _give(major, 9) or _give(minor, 0),
    "nvmlDeviceGetComputeMode": lambda gpu, now_s, out: _give(out, 0),
}


def _published(now_s: float, update_s: float, phase_s: float) -> float:
    """The last update before ``now_s``."""
    return math.floor((now_s - phase_s) / update_s) * update_s + phase_s


def _give(out: Any, value: int) -> int:
    out._obj.value = value
    return _OK


def _write(out: Any, text: str) -> int:
    out.value = text.encode()
    return _OK


def _give_handle(out: Any, number: int) -> int:
    """A handle is an opaque pointer; this one is the number of the GPU, counted from 1.

    That of a slice is the number of its GPU, and as many times ``_MOST_GPUS`` more as it is far in the list.
    """
    ctypes.cast(out, ctypes.POINTER(ctypes.c_void_p))[0] = number + 1
    return _OK


def _number(handle: Any) -> int:
    return int(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 1
