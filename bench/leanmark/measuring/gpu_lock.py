"""One run at a time on each GPU: two would measure each other."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from pathlib import Path
from typing import IO

from leanmark.errors import DeviceBusy


class GpuLock:
    """Held until closed, or until this process ends in whatever way.

    Raises:
        DeviceBusy: another run has it; the message says which.
    """

    def __init__(self, uuid: str, folder: Path | None = None) -> None:
        path = (folder or Path(tempfile.gettempdir())) / f"leanmark-{uuid}.lock"
        self._file = _open(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._file.read().strip() or "a process that did not say its name"
            self._file.close()
            raise DeviceBusy(
                f"another run measures on {uuid}: {holder}. Wait for it, or choose another GPU with "
                "--device cuda:N"
            ) from error
        if self._file.writable():
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()}, {' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}")
            self._file.flush()

    def close(self) -> None:
        """The file stays: taking it away would let two runs lock two files of one name."""
        self._file.close()


def _open(path: Path) -> IO[str]:
    """Of everybody on this machine: whoever comes first makes it; for others, reading is enough to lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except PermissionError:
        return path.open()
    return os.fdopen(descriptor, "r+")
