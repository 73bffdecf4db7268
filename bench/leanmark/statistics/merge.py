"""The replicas of a case put together: a contest writes one measurement for each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from leanmark.record import NOT_STEADY, Case, Finding, Measurement, Pass, Series

UNSTEADY_SHARE = 0.2
"""Where more of the processes than this never got steady, the case has no steady speed to compare."""


def merged(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """One measurement for each case and pass, in the order in which they first appear.

    Measurements of one contest are joined block by block; of others the later counts. One that is not ok
    decides for all: a case that failed in any process has no number.
    """
    groups: dict[tuple[Case, Pass], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.case, one.pass_name), []).append(one)
    return tuple(_joined(group) for group in groups.values())


def _joined(group: Sequence[Measurement]) -> Measurement:
    broken = next((one for one in group if one.status != "ok"), None)
    if broken is not None:
        return broken
    last = group[-1]
    same = [one for one in group if one.contest is not None and one.contest == last.contest]
    if len(same) < 2:
        return last
    first = same[0]
    metrics = dict.fromkeys(series.metric for one in same for series in one.series)
    return replace(
        first,
        series=tuple(_series(metric, same) for metric in metrics),  # a meter may fail in some, the first too
        findings=_findings(same),
        quality=next((one.quality for one in same if one.quality), None),
        executed={
            **first.executed,
            "processes": [place for one in same for place in one.executed.get("processes", ())],
        },
    )


def _series(metric: str, group: Sequence[Measurement]) -> Series:
    parts = [series for one in group if (series := one.find(metric))]
    return replace(parts[0], blocks=tuple(block for part in parts for block in part.blocks))


def _findings(group: Sequence[Measurement]) -> tuple[Finding, ...]:
    """Every finding once; a few processes that were not steady are told, and decide nothing."""
    found = dict.fromkeys(finding for one in group for finding in one.findings)
    unsteady = sum(any(finding.code == NOT_STEADY for finding in one.findings) for one in group)
    others = [finding for finding in found if finding.code != NOT_STEADY]
    if unsteady:
        few = unsteady <= UNSTEADY_SHARE * len(group)
        message = f"{unsteady} of {len(group)} processes were still warming up when their time for it ended"
        others.append(Finding(code="few-not-steady" if few else NOT_STEADY, message=message))
    return tuple(others)
