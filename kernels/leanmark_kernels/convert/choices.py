"""What was measured for a layer and what was chosen, and the file in which the timings outlive a process."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch

from leanmark_kernels import _native


@dataclass(frozen=True, slots=True)
class Timing:
    """One candidate, ``own`` where an operator of ours: seconds per call and, where it was needed, its error.

    ``error`` is the largest one against float64 over the largest output; ``refused`` says why a candidate was
    not eligible.
    """

    candidate: str
    time_s: float
    own: bool = False
    error: float | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What became of ``layer``: ``chosen`` is the name of a candidate, ``operator`` ours or ``None``.

    ``weights_count`` of its weights are stored as ``weights``, a key of ``WEIGHTS``.

    ``timings`` are the fastest first; ``cached`` says that they are of an earlier process on this machine.
    ``failed`` are candidates that a GPU cannot run, and why.
    """

    layer: str
    what: str
    chosen: str
    operator: str | None
    weights: str
    weights_count: int
    timings: tuple[Timing, ...]
    cached: bool
    failed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        times = ", ".join(f"{one.candidate} {one.time_s * 1e6:.1f} µs" for one in self.timings)
        return f"{self.layer}: {self.what}: {self.chosen} ({times})"


class TimingCache:
    """Timings by what was timed, in one file per ``machine`` and build of this package.

    Lost timings are only measured again, so a file that cannot be read or written is a warning.
    """

    def __init__(self, folder: Path | None, machine: Mapping[str, str | int]) -> None:
        self._machine = {**machine, "kernels": _build()}
        self._path = None if folder is None else folder / f"{_slug(self._machine)}.json"
        self._known = self._read()

    def get(self, what: str, names: list[str]) -> dict[str, float] | None:
        """The seconds of every one of ``names``, or ``None`` unless all were timed together."""
        found = self._known.get(what)
        if not isinstance(found, dict) or sorted(found) != sorted(names):
            return None
        return {name: float(found[name]) for name in names}

    def put(self, what: str, times: Mapping[str, float]) -> None:
        self._known[what] = dict(times)

    def save(self) -> None:
        """Add what is new to the file, in one step, so that nobody reads half a file."""
        if self._path is None:
            return
        content = {"machine": self._machine, "seconds": {**self._read(), **self._known}}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, suffix=".part")
            with os.fdopen(descriptor, "w") as file:
                json.dump(content, file, indent=1, sort_keys=True)
            Path(name).replace(self._path)
        except OSError as error:
            warnings.warn(f"the timings of this conversion are not kept: {error}", stacklevel=4)

    def _read(self) -> dict[str, object]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            content = json.loads(self._path.read_text())
            if content["machine"] != self._machine:
                return {}
            return dict(content["seconds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{self._path} is not read, its timings are measured again: {error}", stacklevel=5)
            return {}


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/leanmark``, by default ``~/.cache/leanmark``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "leanmark"


def machine() -> dict[str, str | int]:
    """What timings on this processor depend on besides the work itself."""
    return {
        "processor": _processor(),
        "torch": torch.__version__,
        "instructions": _native.instruction_set(),
        "threads": torch.get_num_threads(),
    }


@cache
def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    wanted = ("cpu family", "model", "model name", "CPU part")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    named = [found[key] for key in (key for key in found if key.strip() in wanted)]
    return " ".join(named) or platform.processor() or platform.machine()


@cache
def _build() -> str:
    """The checksum of this package: any change in it may make something faster."""
    package = Path(__file__).parents[1]
    total = 0
    for path in sorted([*package.rglob("*.py"), *package.glob("_C*")]):
        total = zlib.crc32(path.read_bytes(), total)
    return f"{total:08x}"


def _slug(values: Mapping[str, str | int]) -> str:
    return f"kernels-{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"
