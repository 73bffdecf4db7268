"""Instructions of a Python script's steps, counted by valgrind's callgrind: slow, quiet, and opt-in.

It works where the processor's own counter is out of reach, as in most virtual machines. Only what runs
inside :func:`collecting` is counted; elsewhere, the script runs at about a tenth of its speed, and inside at
a fiftieth. Valgrind hides AVX-512, so libraries choose their AVX2 kernels. Counts of
small PyTorch models came back within 0.3 % of each other, those of plain Python exactly.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from leanmark.errors import UsageError, WorkerDied, WorkerTimeout

_START, _STOP = 0x43540004, 0x43540005
"""Requests to callgrind (``callgrind.h``): the letters CT, then a number."""

_CLIENT_REQUEST = bytes.fromhex(
    "4889f8"  # mov rax, rdi: the request and its five arguments
    "4831d2"  # xor rdx, rdx: what to answer outside valgrind
    "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi by 3, 13, 61 and 51: 128 bits, so nothing changes
    "4887db"  # xchg rbx, rbx: together with the above, valgrind's sign that it is meant
    "4889d0"  # mov rax, rdx
    "c3"  # ret
)
"""``VALGRIND_DO_CLIENT_REQUEST`` of ``valgrind.h`` for x86-64, as a function of one pointer."""

_STEADY: Mapping[str, str] = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def unavailable() -> str | None:
    """Why callgrind cannot be used here, or ``None``."""
    if platform.machine() != "x86_64":
        return f"leanmark tells callgrind when to count on x86-64 only, not on {platform.machine()}"
    if shutil.which("valgrind") is None:
        return "valgrind is not installed: sudo apt-get install valgrind"
    return None


def instructions(script: Path, steps: int, timeout_s: float = 600.0) -> int:
    """Instructions of ``steps`` steps of ``script``, less those of none.

    ``script`` is run twice, with the number of steps as its last argument; it does them inside
    ``with leanmark.machine.callgrind.collecting():``, after warming up outside.

    Raises:
        UsageError: the script counts nothing; or callgrind is unavailable.
        WorkerDied: the script failed.
        WorkerTimeout: a run took longer than ``timeout_s``.
    """
    return command_instructions((sys.executable, str(script)), steps, timeout_s)


def command_instructions(
    command: Sequence[str],
    steps: int,
    timeout_s: float = 600.0,
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> int:
    """The same for a ``command``, run in this environment and folder."""
    if reason := unavailable():
        raise UsageError(reason)

    def run(count: int) -> int:
        return _run((*command, str(count)), timeout_s, environment, folder)

    full = run(steps)
    if full == 0:
        raise UsageError(f"{command[-1]} counts nothing: its steps belong inside callgrind.collecting()")
    return full - run(0)


@contextmanager
def collecting() -> Iterator[None]:
    """Callgrind counts what runs inside, without garbage collection; without callgrind, nothing happens."""
    gc.collect()
    gc.disable()  # a collection would fall into some runs and not into others
    _request(_START)
    try:
        yield
    finally:
        _request(_STOP)
        gc.enable()


def total(text: str) -> int:
    """The instructions in a callgrind file.

    Raises:
        ValueError: there is no ``totals:`` line.
    """
    for line in text.splitlines():
        if line.startswith("totals:"):
            return int(line.split()[1])
    raise ValueError("no 'totals:' line: this is no complete callgrind file")


def _run(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str], folder: Path | None
) -> int:
    name = command[-2]
    with tempfile.TemporaryDirectory(prefix="leanmark-") as scratch:
        counts = Path(scratch) / "callgrind.out"
        tool = ("valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={counts}")
        try:
            done = subprocess.run(
                [*tool, *command],
                cwd=folder,
                env={**environment, **_STEADY},
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WorkerTimeout(f"{name} under callgrind took longer than {timeout_s:g} s") from error
        if done.returncode:
            words = done.stderr.strip().splitlines()[-1:]
            raise WorkerDied(f"{name} under callgrind exited with code {done.returncode}: {' '.join(words)}")
        return total(counts.read_text())


def _request(code: int) -> None:
    if unavailable():
        return
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_CLIENT_REQUEST)
    start = ctypes.c_char.from_buffer(page)
    function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(ctypes.addressof(start))
    request = (ctypes.c_uint64 * 6)(code)
    function(ctypes.addressof(request))
