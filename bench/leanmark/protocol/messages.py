"""What the launcher and a worker say to each other, pickled over a socket pair.

Every request gets exactly one reply: the value named beside it, or a ``Failure``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from leanmark.record import Case, Finding, ModelFacts, Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """A registered workload by ``name``; or a user's own, where ``name`` and ``data`` are targets."""

    name: str
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker runs: the cores it is pinned to, and how many threads it uses."""

    cores: tuple[int, ...]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Apply the last link of ``chain`` (``fp32``: make the baseline). Reply: ``Ready``."""

    workload: WorkloadSpec
    folder: str
    chain: str
    backends: tuple[str, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """``model`` and ``refusals`` (why a backend cannot run this model) are by backend."""

    work: str
    time_s: float
    model: Mapping[str, ModelFacts]
    refusals: Mapping[str, str]
    verified: Mapping[str, Any]
    doubts: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Load a prepared case, assert that it is what it says, warm it up. Reply: ``Opened``."""

    case: Case
    workload: WorkloadSpec
    folder: str
    place: Place
    warmup_s: float
    block_s: float
    judge_quality: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """``cold_start_s`` is loading the model and its first step; ``loops`` steps fill one block."""

    cold_start_s: float
    step_s: float
    loops: int
    steady: bool
    executed: Mapping[str, Any]
    quality: Quality | None
    unobserved: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunBlock:
    """Run ``loops`` steps back to back. Reply: ``BlockTime``."""

    loops: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """``flags`` say what disturbed the block, as far as its own process can tell."""

    start_s: float
    wall_s: float
    cpu_s: float
    flags: tuple[str, ...] = ()
    clock_hz: float | None = None


@dataclass(frozen=True, slots=True)
class RunWindow:
    """Run steps until ``seconds`` have passed. Reply: ``Window``."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    steps: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class RunSamples:
    """Time ``count`` steps one by one. Reply: their seconds, a tuple of floats."""

    count: int


@dataclass(frozen=True, slots=True)
class CheckAgain:
    """Assert once more, after the rounds, what ran. Reply: the executed facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeakMemory:
    """In a spawned process: import, load, run ``steps``. Reply: ``MemoryReading``."""

    case: Case
    workload: WorkloadSpec
    folder: str
    place: Place
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """Resident bytes: after importing the backend, after loading the model, and the peak of the steps.

    ``parts`` are bytes of tensors by what they are for, as far as the backend knows.
    """

    import_bytes: int
    loaded_bytes: int
    peak_bytes: int
    parts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Failure:
    """``kind`` decides the status: unsupported -> skipped, took_no_effect -> invalid, raised -> failed."""

    kind: Literal["unsupported", "took_no_effect", "raised"]
    summary: str
    traceback: str


Request = Prepare | Open | RunBlock | RunWindow | RunSamples | CheckAgain | PeakMemory
