"""The same cases in two runs: what `leanmark compare A B` compares. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from leanmark.errors import NotComparable
from leanmark.reading.compare import Side, compare_series
from leanmark.record import Comparison
from leanmark.statistics.merge import merged
from leanmark.store import Records

_METRICS = ("latency_s", "working_memory_bytes", "energy_j")


def compare_runs(a: Records, b: Records) -> tuple[Comparison, ...]:
    """B over A for every case and metric that both measured.

    Raises:
        NotComparable: they share no case, or were made on different machines, software or work.
    """
    found = tuple(_comparisons(a, b))
    if not found:
        raise NotComparable(f"{a.path.name} and {b.path.name} have no measured case in common")
    return found


def _comparisons(a: Records, b: Records) -> Iterator[Comparison]:
    theirs = {(one.case, one.pass_name): one for one in merged(a.measurements) if one.status == "ok"}
    for ours in merged(b.measurements):
        before = theirs.get((ours.case, ours.pass_name))
        if before is None or ours.status != "ok":
            continue
        for metric in _METRICS:
            if ours.find(metric) and before.find(metric):
                yield compare_series(
                    Side(run=a.run, measurement=before), Side(run=b.run, measurement=ours), metric
                )
