"""What a step does, counted instead of timed: the same on every machine, so a gate without noise. Pure.

Counts do not replace time: they see neither caches nor vector units. They show in a CI job on a shared
processor, where time cannot, that a change made a model do more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """One step, as ``operators.count`` sees it.

    ``flops`` counts a multiply-accumulate as two; it is ``None`` where an operator ran whose arithmetic
    nobody knows. ``operators`` are calls that compute or copy: views are
    free. ``read_bytes`` and ``written_bytes`` are the sizes of their tensor arguments and results, as if
    nothing stayed in a cache. ``allocations`` are results in memory of their own, of
    ``allocated_bytes``; what an operator takes and gives back inside is not in it. ``instructions`` are
    executed by the processor (``meters.instructions``, ``callgrind``): they depend on libraries and
    instruction set, and are ``None`` where nobody counted.
    """

    flops: int | None
    operators: int
    read_bytes: int
    written_bytes: int
    allocations: int
    allocated_bytes: int
    instructions: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value < 0:
                raise ValueError(f"Counters.{name} must not be negative, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Counters of one step by the metric's name, and the reasons why others are missing."""

    counts: Mapping[str, int]
    missing: Mapping[str, str] = field(default_factory=dict)


METRICS = (
    "flops", "operator_calls", "read_bytes", "written_bytes", "allocations", "allocated_bytes", "instructions"
)  # fmt: skip
"""The names of all counters in records and gates."""
