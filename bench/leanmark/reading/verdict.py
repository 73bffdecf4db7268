"""What a row is and what is said of it, in words. Pure."""

from __future__ import annotations

from leanmark.reading.compare import judge_quality
from leanmark.reading.table import Judged, Metric, Role
from leanmark.record import Case, Quality, Status
from leanmark.statistics import stats
from leanmark.thresholds import Thresholds


def role_of(case: Case, reference: Case | None) -> Role:
    if case.sentinel:
        return "sentinel"
    if case.commit is not None:
        return "baseline"
    if reference is not None and reference.commit is not None:
        return "commit"
    if not case.is_baseline:
        return "technique"
    return "backend switch" if reference else "baseline"


def judge(quality: Quality, thresholds: Thresholds) -> Judged:
    if quality.correct is None:
        return Judged(quality=quality)
    interval = stats.wilson(quality.correct, quality.count)
    if quality.gained is None or quality.lost is None:
        return Judged(quality=quality, interval=interval)
    change = stats.paired_accuracy_change(quality.gained, quality.lost, quality.count)
    return Judged(
        quality=quality,
        interval=interval,
        change=change,
        verdict=judge_quality(change, thresholds.margin("accuracy"), quality.direction),
    )


def words(role: Role, status: Status, latency: Metric | None, judged: Judged | None) -> str:
    """Words such as ``better · accuracy same``; speed never without quality."""
    if status != "ok":
        return status
    if role == "baseline":
        return "baseline"
    if latency is None:
        return "not measured"
    if latency.comparison is None:
        return "no baseline"
    speed = latency.comparison.verdict
    if role == "sentinel":
        return "A/A failed" if speed in ("better", "worse") else "A/A"
    if speed == "invalid":
        return "invalid"
    if judged is None:
        return f"{speed} · quality not measured"
    name = judged.quality.metric
    return f"{speed} · {name} {judged.verdict or 'not judged'}"
