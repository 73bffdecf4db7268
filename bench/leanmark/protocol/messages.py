"""What the launcher and a worker say to each other, pickled over a socket pair.

Every request gets exactly one reply: the value named beside it, or a ``Failure``. ``Prepare``,
``TrainToQuality`` and ``Open`` send pairs of ``Notice`` before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """Apply the last link of ``chain`` (``fp32``: make the baseline). Reply: ``Notice`` pairs, ``Ready``.

    ``device`` is where the model will run.
    """

    workload: WorkloadSpec
    folder: str
    chain: str
    backends: tuple[str, ...]
    place: Place
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainToQuality:
    """Train the workload's model with the techniques of ``chain`` until it is as good as ``target``, or where
    that is ``None`` as the workload states; ``seed`` draws its first weights and shuffles. Reply: two
    ``Notice``, ``Trained``. ``device`` is where it trains."""

    workload: WorkloadSpec
    chain: str
    target: float | None
    seed: int
    place: Place
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """``qualities`` are those at the end of each of the ``epochs`` epochs of at most ``longest``.

    ``time_s`` is that of the whole run, in which ``looking_s`` went into finding the qualities, and
    ``earlier_s`` into training and applying what the last training begins with. ``steps`` are of all of it,
    ``operators`` those of a step of the last training.
    """

    metric: str
    target: float
    reached: bool
    qualities: tuple[float, ...]
    epochs: int
    longest: int
    steps: int
    time_s: float
    looking_s: float
    earlier_s: float = 0.0
    operators: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notice:
    """What applying a technique costs begins now, or has ended: energy is metered in between.

    The same about building the model for ``backend``, and about the first call of a case that is opened.
    """

    what: Literal["begins", "ended"]
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """``model`` and ``refusals`` (why a backend cannot run this model) are by backend.

    ``epochs`` and ``steps`` are those of training the baseline, ``None`` for all else. ``build_s`` is what
    writing the model for a backend took, where that is more than saving it.

    ``work_parts`` are what ``work`` is the hash of, to tell what differs where two hashes do.
    """

    work: str
    work_parts: Mapping[str, str]
    time_s: float
    epochs: int | None = None
    steps: int | None = None
    model: Mapping[str, ModelFacts]
    refusals: Mapping[str, str]
    verified: Mapping[str, Any]
    doubts: tuple[Finding, ...]
    build_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Load a prepared case, assert that it is what it says, warm it up. Reply: two ``Notice``, ``Opened``.

    Its quality is paired with that of the same technique in ``rival_folder``, or of its own baseline.
    """

    case: Case
    workload: WorkloadSpec
    folder: str
    place: Place
    warmup_s: float
    block_s: float
    judge_quality: bool
    rival_folder: str | None = None


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
    """``flags`` say what disturbed the block, as far as its own process can tell.

    ``host_s`` is until all steps were asked for. ``device_s`` and ``cold_device_s`` are per step what the
    device itself needed, ``None`` where it is the host. ``hash_bytes_per_s`` is how fast the core was right
    after the block, ``None`` where another device did the work.
    """

    start_s: float
    wall_s: float
    cpu_s: float
    host_s: float = 0.0
    device_s: float | None = None
    cold_device_s: float | None = None
    flags: tuple[str, ...] = ()
    clock_hz: float | None = None
    hash_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunWindow:
    """Run steps until ``seconds`` have passed. Reply: ``Window``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunPaced:
    """Begin a step at each of ``rate_hz`` ticks a second, for ``seconds``. Reply: ``Window``.

    Its ``steps`` are fewer than the ticks where the work could not keep up.
    """

    seconds: float
    rate_hz: float


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


@dataclass(frozen=True, slots=True)
class CountStep:
    """Count what a step does, after all else: nothing is timed any more. Reply: ``Counted``."""


@dataclass(frozen=True, slots=True)
class LoadedFrom:
    """Which modules were imported from ``folder``, but for ``besides``. Reply: their names, a tuple."""

    folder: str
    besides: tuple[str, ...]


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

    ``host`` are others by metric: before any import, and between steps, as far as the system tells.
    ``parts`` are bytes of tensors by what they are for, as far as the backend knows. ``device`` is the memory
    of a device that has its own, by metric.
    """

    import_bytes: int
    loaded_bytes: int
    peak_bytes: int
    host: Mapping[str, int]
    parts: Mapping[str, int]
    device: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """``kind`` decides the status: skipped, failed, invalid, invalid, failed, failed."""

    kind: Literal["unsupported", "usage", "took_no_effect", "implausible", "out_of_memory", "raised"]
    summary: str
    traceback: str


Request = (
    Prepare
    | TrainToQuality
    | Open
    | RunBlock
    | RunWindow
    | RunPaced
    | RunSamples
    | CheckAgain
    | LoadedFrom
    | CountStep
    | PeakMemory
)
