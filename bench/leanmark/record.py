"""The frozen facts leanmark writes and reads. Standard library only.

Values are SI and the unit closes the name (``_s``, ``_j``, ``_w``, ``_bytes``, ``_g``).
"Not measured" is ``None`` with a reason beside it, never 0.

History of ``SCHEMA``
  1  first format: a ``run`` line, then ``measurement`` lines
  2  estimates are not among ``series`` and ``cost.energy_j``, but in ``estimates`` and ``cost.estimated_...``
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from leanmark.finding import DOMAIN_LOST as DOMAIN_LOST
from leanmark.finding import NO_COUNTER as NO_COUNTER
from leanmark.finding import NOT_STEADY as NOT_STEADY
from leanmark.finding import Finding as Finding
from leanmark.finding import left_out as left_out
from leanmark.intensity import Intensity, Site
from leanmark.rival import Rival
from leanmark.sampling import SamplingPlan as SamplingPlan

SCHEMA = 2

BASELINE = "fp32"
"""The technique that changes nothing: every ratio has it below the line."""

REFERENCE_BACKEND = "eager"
"""What the unchanged model on another backend is compared to: that switch is a row of its own."""

Phase = Literal["inference", "training"]
Pass = Literal["prepare", "latency", "memory", "energy", "quality_run"]
Status = Literal["ok", "skipped", "failed", "invalid"]
Direction = Literal["lower", "higher"]
Verdict = Literal["better", "worse", "same", "inconclusive", "invalid"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.:-]*", re.IGNORECASE)


class Provenance(StrEnum):
    """How a number was obtained, best first. Sums and ratios inherit the worst."""

    MEASURED_COUNTER = "measured_counter"
    SAMPLED_POWER = "sampled_power"
    ESTIMATED_MODEL = "estimated_model"
    UNAVAILABLE = "unavailable"

    @property
    def mark(self) -> str:
        """What is printed before the number: ``~`` for an estimate."""
        return "~" if self is Provenance.ESTIMATED_MODEL else ""

    @staticmethod
    def worst(kinds: Iterable[Provenance]) -> Provenance:
        order = list(Provenance)
        return max(kinds, key=order.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure: this workload, changed this way, run there, doing that.

    ``technique`` is a chain such as ``prune(ratio=0.5)+int8``, or ``fp32``.
    ``threads`` and ``wait`` (what idle OpenMP threads do) change the number, so they are identity.
    """

    workload: str
    technique: str = BASELINE
    backend: str = "eager"
    device: str = "cpu"
    phase: Phase = "inference"
    batch: int = 1
    threads: int = 1
    wait: Literal["passive", "active"] = "passive"
    sentinel: bool = False
    """The baseline once more, in processes of its own: an A/A comparison that shows the noise."""
    commit: str | None = None
    """The code it ran, where that is another commit's than the run's own (``--against``)."""

    def __post_init__(self) -> None:
        for name in ("workload", "backend", "device"):
            value = getattr(self, name)
            if not _NAME.fullmatch(value):
                raise ValueError(f"Case.{name} must be a plain name, not {value!r}")
        if self.batch < 1:
            raise ValueError(f"Case.batch must be at least 1, not {self.batch}")
        if self.threads < 1:
            raise ValueError(f"Case.threads must be at least 1, not {self.threads}")
        if self.sentinel and self.technique != BASELINE:
            raise ValueError(f"a sentinel is the baseline again, not {self.technique}")

    @property
    def id(self) -> str:
        """Readable and stable: ``cnn/inference/b1/prune+int8/onnxruntime/cpu/t1``."""
        return (
            f"{self.workload}/{self.phase}/b{self.batch}/{self.label}"
            f"/{self.backend}/{self.device}/t{self.threads}"
        )

    @property
    def label(self) -> str:
        """The technique, told apart from its sentinel and from the same at another commit."""
        return self.technique + "-again" * self.sentinel + (f"@{self.commit}" if self.commit else "")

    @property
    def pair_key(self) -> tuple[str, ...]:
        """Everything but technique, backend and commit: cases that share it meet in one contest."""
        work = (self.workload, self.phase, str(self.batch))
        return (*work, self.device, str(self.threads), self.wait)

    @property
    def is_baseline(self) -> bool:
        return self.technique == BASELINE and not self.sentinel

    def baseline(self, *, backend: str | None = None) -> Case:
        """The unchanged model doing the same work, on this backend unless another is named."""
        return replace(self, technique=BASELINE, backend=backend or self.backend, sentinel=False)

    def reference(self) -> Case | None:
        """The baseline on this backend; for that one, the baseline in eager PyTorch; else ``None``."""
        if not self.is_baseline:
            return self.baseline()
        return None if self.backend == REFERENCE_BACKEND else self.baseline(backend=REFERENCE_BACKEND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where a number was made.

    ``machine`` and ``software`` are identity: two records are compared only where they agree.
    ``conditions`` are recorded because they disturb, not because they identify.
    """

    machine: Mapping[str, str | int | float | None]
    software: Mapping[str, str | None]
    conditions: Mapping[str, str | int | float | bool | None]

    @property
    def machine_id(self) -> str:
        return short_hash(self.machine)

    @property
    def software_id(self) -> str:
        return short_hash(self.software)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """``loops`` steps run back to back; ``value`` is per step, in the unit of its series.

    ``process`` is the replica, ``round`` counts within it, ``order`` is the place in that round.
    ``start_s`` is on the measuring process's monotonic clock. ``hash_bytes_per_s`` is how fast the core was
    right after the block. ``uncertainty`` is the meter's, a half-width in the unit of the series from
    quantisation and sampling, ``None`` where it is not known or nothing.
    """

    process: int
    round: int
    order: int
    value: float
    loops: int
    start_s: float
    flags: tuple[str, ...] = ()
    clock_hz: float | None = None
    hash_bytes_per_s: float | None = None
    temperature_c: float | None = None
    uncertainty: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"Block.value must be finite, not {self.value}")
        if self.loops < 1:
            raise ValueError(f"Block.loops must be at least 1, not {self.loops}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """All raw blocks of one metric. The metric's name ends in its unit: ``latency_s``.

    ``gain`` is the relative error of the sensor itself: it cancels in a ratio on one device, nowhere else.
    """

    metric: str
    direction: Direction = "lower"
    provenance: Provenance = Provenance.MEASURED_COUNTER
    meter: str
    scope: Literal["process", "machine", "device", "model"] = "process"
    gain: float | None = None
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError(f"Series {self.metric} has no blocks: leave it out and say why")
        if self.provenance is Provenance.UNAVAILABLE:
            raise ValueError(f"Series {self.metric} is unavailable: leave it out and say why")

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(block.value for block in self.blocks)

    @property
    def processes(self) -> int:
        return len({block.process for block in self.blocks})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good the very model that was measured is, on ``count`` test samples.

    ``gained`` and ``lost`` count samples that only this model, or only the unchanged one, got right.
    ``agreement`` is the share of equal predictions, ``relative_error`` the L2 distance of the outputs
    over the L2 norm of the unchanged model's outputs (``None`` where the two models differ by design).
    For regression ``correct``, ``gained`` and ``lost`` are ``None`` and ``value`` is R².
    """

    metric: str
    value: float
    count: int
    direction: Direction = "higher"
    correct: int | None = None
    gained: int | None = None
    lost: int | None = None
    agreement: float | None = None
    relative_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What applying a technique took, once: training, fine-tuning, calibrating.

    ``energy_j`` has the provenance of its meter and covers the same time; ``None`` comes with
    ``energy_reason``. Its uncertainty is a half-width, with the gain of the sensor. ``epochs`` and ``steps``
    are those of training the baseline. ``build_s`` and its energy are what writing the model in the form of
    its backend took on top, ``None`` where that is nothing but saving it.
    """

    time_s: float
    energy_j: float | None = None
    energy_provenance: Provenance = Provenance.UNAVAILABLE
    energy_reason: str | None = None
    energy_uncertainty_j: float | None = None
    epochs: int | None = None
    steps: int | None = None
    build_s: float | None = None
    build_j: float | None = None
    build_uncertainty_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts about the changed model that do not depend on the machine.

    ``macs`` counts multiply-accumulates for one sample, ``size_bytes`` the file a user would ship; ``tokens``
    are the positions of a sample that is a sequence.
    """

    parameters: int
    macs: int
    size_bytes: int
    tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One case in one pass: the only thing measuring writes.

    ``executed`` is what really ran (dtypes, operators, threads, device), asserted before and after.
    ``contest`` names the rounds these blocks share with other variants; only such blocks are paired.
    ``samples_s`` are single steps of one process, one after another: percentiles need those, not means.
    """

    run: str
    case: Case
    pass_name: Pass
    status: Status
    work: str
    reason: str | None = None
    traceback: str | None = None
    contest: str | None = None
    series: tuple[Series, ...] = ()
    samples_s: tuple[float, ...] = ()
    findings: tuple[Finding, ...] = ()
    quality: Quality | None = None
    model: ModelFacts | None = None
    cost: Cost | None = None
    executed: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status != "ok" and not self.reason:
            raise ValueError(f"a measurement that is {self.status} needs a reason")
        if self.status in ("failed", "skipped", "invalid") and self.series:
            raise ValueError(f"a measurement that is {self.status} carries no numbers")

    def find(self, metric: str) -> Series | None:
        return next((series for series in self.series if series.metric == metric), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The first line of a results file: everything its measurements share."""

    id: str
    started: str
    leanmark: str
    plan: SamplingPlan
    environment: Environment
    command: tuple[str, ...]
    commit: str | None = None
    intensity: Intensity | None = None
    schema: int = SCHEMA
    against: Rival | None = None
    site: Site | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """``low <= value <= high`` at ``confidence``; ``method`` says how, ``scope`` over what."""

    value: float
    low: float
    high: float
    confidence: float
    method: str
    scope: Literal["within-process", "across-processes", "samples"]

    def __post_init__(self) -> None:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"interval out of order: {self.low}, {self.value}, {self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A series in a few numbers, derived and never stored as truth.

    ``value`` is in the unit of the metric; ``interval`` is ``None`` where the blocks are too few for one.
    """

    metric: str
    value: float
    interval: Interval | None
    count: int
    processes: int
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Candidate over baseline for one metric. ``ratio`` is ``None`` where none may be stated.

    ``margin`` is the relative difference that counts, raised to ``floor`` where that is more: what an
    absolute difference that never counts is of the baseline's value. ``allowance`` is what is added to it
    while too few processes were seen. ``detectable`` is the smallest relative effect this data would find
    with 80 % probability. ``demoted`` means that something took its verdict away, whatever the interval says.
    ``more_processes`` would settle an inconclusive one, as far as can be told, and take ``more_s``.
    """

    metric: str
    baseline: Case
    candidate: Case
    ratio: Interval | None
    verdict: Verdict
    margin: float
    allowance: float
    detectable: float | None = None
    reason: str | None = None
    demoted: bool = False
    floor: float = 0.0
    more_processes: int | None = None
    more_s: float | None = None
    pairs: int = 0
    processes: int = 0
    provenance: Provenance = Provenance.MEASURED_COUNTER
    findings: tuple[Finding, ...] = ()


def short_hash(value: object) -> str:
    """The first 12 hex digits of SHA-256 over the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
