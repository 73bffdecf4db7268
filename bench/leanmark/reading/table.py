"""What a table holds: rows of metrics, quality and words. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from leanmark.intensity import Intensity
from leanmark.reading import sci
from leanmark.reading.counts import Counted
from leanmark.reading.device import OnDevice
from leanmark.reading.energetics import Energetics
from leanmark.reading.first_call import FirstCall
from leanmark.reading.memory import Split
from leanmark.reading.quality_run import QualityRun
from leanmark.record import (
    Case,
    Comparison,
    Cost,
    Finding,
    Interval,
    ModelFacts,
    Quality,
    Run,
    Status,
    Summary,
    Verdict,
)
from leanmark.statistics.percentiles import Percentile

Role = Literal["baseline", "sentinel", "backend switch", "technique", "commit"]
"""Cases of the other commit of a run against one are baselines; their twins of this tree are "commit"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measured quantity of a row; ``comparison`` is to the row's reference."""

    summary: Summary
    comparison: Comparison | None = None
    reference: Summary | None = None

    @property
    def plain_ratio(self) -> float | None:
        """Value over value. Not a claim: it has no interval, and none is printed beside it."""
        if self.reference is None or self.reference.value <= 0:
            return None
        return self.summary.value / self.reference.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Quality, the interval of its value, and the paired change against the unchanged model.

    For regression there is no interval and no verdict.
    """

    quality: Quality
    interval: Interval | None = None
    change: Interval | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One technique on one backend. ``None`` is "not measured"; ``missing`` says why, by pass.

    ``slowed_share`` is of its blocks of latency those in which the core was slowed.
    """

    case: Case
    role: Role
    status: Status
    reason: str | None = None
    verdict: str
    latency: Metric | None = None
    cold_start: Metric | None = None
    slowed_share: float | None = None
    percentiles: tuple[Percentile, ...] = ()
    peak_memory: Metric | None = None
    import_memory: Metric | None = None
    working_memory: Metric | None = None
    steady_memory: Metric | None = None
    memory: Split | None = None
    device: OnDevice | None = None
    counted: Counted | None = None
    energy: Metric | None = None
    energy_at_rate: Metric | None = None
    energetics: Energetics | None = None
    co2_g: float | None = None
    footprint: sci.Footprint | None = None
    model: ModelFacts | None = None
    reference_model: ModelFacts | None = None
    judged: Judged | None = None
    cost: Cost | None = None
    first_call: FirstCall | None = None
    quality_run: QualityRun | None = None
    executed: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def samples_per_s(self) -> float | None:
        """Throughput: batch over the latency of one step."""
        return self.case.batch / self.latency.summary.value if self.latency else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows that may be compared with one another: same work, phase, batch, device and threads."""

    run: Run
    rows: tuple[Row, ...]
    intensity: Intensity | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def case(self) -> Case:
        """What all rows share; its technique and backend are those of the first row only."""
        return self.rows[0].case

    @property
    def title(self) -> str:
        case = self.case
        threads = f"{case.threads} thread" + ("s" if case.threads > 1 else "")
        return f"{case.workload} · {case.phase} · batch {case.batch} · {case.device}, {threads}"
