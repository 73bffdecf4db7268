"""Opening one counter of the kernel's performance events; the C library has no function for it."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_CALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
_CLOSE_ON_EXEC = 8
_ALL_PROCESSES = -1
_NO_GROUP = -1
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")  # struct perf_event_attr, first published version, 64 bytes


class PerfEvent:
    """A counter of ``config`` of the device ``kind``, for everything that runs on ``cpu``.

    With ``process`` 0 it counts for the calling thread alone, with ``cpu`` -1 wherever that runs. ``flags``
    are the bits of ``struct perf_event_attr`` that begin with ``disabled``.

    Raises:
        PermissionError: it needs CAP_PERFMON or ``kernel.perf_event_paranoid`` of 0 or less.
        OSError: the kernel refuses it for another reason.
    """

    def __init__(
        self, kind: int, config: int, cpu: int, process: int = _ALL_PROCESSES, flags: int = 0
    ) -> None:
        attributes = _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, config, 0, 0, 0, flags, 0, 0, 0)
        number = _CALL_NUMBERS.get(platform.machine())
        if number is None:
            raise OSError(f"the call perf_event_open is not known for {platform.machine()}")
        call = ctypes.CDLL(None, use_errno=True).syscall
        self._file: int = call(number, attributes, process, cpu, _NO_GROUP, _CLOSE_ON_EXEC)
        if self._file < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def read(self) -> int:
        return int.from_bytes(os.read(self._file, 8), "little")

    def close(self) -> None:
        os.close(self._file)
