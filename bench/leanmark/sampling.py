"""How much is measured: part of every record. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from leanmark.thresholds import Thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How much is measured: ``processes`` replicas per variant, ``rounds`` in each.

    ``warmup_s`` is the longest that warming up may take, once there were steps enough to tell; it ends as
    soon as they are steady.
    ``processes`` is the first look. While an interval is wider than ``precision`` (relative half-width)
    processes are added up to ``max_processes``, until ``budget_s`` is spent; never until a difference is
    significant, which would find one in 18 to 29 % of identical code. ``samples`` single steps are timed.
    Energy that is measured takes ``energy_rounds`` windows in each of the first ``energy_processes``;
    ``request_rate``, in requests of one batch per second, asks for windows at that pace too.
    ``thresholds`` are the differences that count when it is read.
    ``target`` asks for training runs until the quality on data held out is so good, or what the workload
    states; ``target_seeds`` of them for each workload.
    ``instructions`` says who counts those of a step: the processor, or valgrind, which takes a minute a case.
    """

    profile: str
    processes: int
    rounds: int
    block_s: float
    warmup_s: float
    memory_processes: int
    memory_steps: int
    energy_window_s: float
    timeout_s: float
    seed: int = 0
    max_processes: int = 0
    precision: float = 0.01
    budget_s: float | None = None
    samples: int = 0
    energy_processes: int = 1
    energy_rounds: int = 1
    request_rate: float | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    instructions: Literal["perf", "callgrind"] = "perf"
    target: Literal["stated"] | float | None = None
    target_seeds: int = 3

    def __post_init__(self) -> None:
        if self.max_processes < self.processes:
            object.__setattr__(self, "max_processes", self.processes)
        for name in ("processes", "rounds", "memory_processes", "memory_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"SamplingPlan.{name} must be at least 1")
        for name in ("block_s", "warmup_s", "energy_window_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"SamplingPlan.{name} must be positive")
