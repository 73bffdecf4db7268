"""Variants that fail, cheat or do not apply, side by side in real runs: what each of them ends as."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leanmark.store import Records

from .tiny_runs import SAMPLING, beside_tiny, only, planned, ran

BROKEN_TECHNIQUES = Path(__file__).parents[1] / "unit"

FAILURES = {
    "raise": "ArithmeticError: the model broke in the middle",
    "die": "killed by SIGKILL",
    "hang": "no answer within 2 s",
}
NO_EFFECT = {
    ("broken_techniques:AutocastNotEntered", "eager"): "not everything ran in bfloat16",
    ("broken_techniques:MaskOnly", "eager"): "no layer became narrower",
    ("broken_techniques:Int8CopiesGraph", "onnxruntime"): "is an 8-bit integer",
    ("tiny:Garbage", "eager"): "outputs are off by",
    ("tiny:BadlyRetrained", "eager"): "close to guessing among 4 classes",
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Records:
    techniques = [f"tiny:Misbehaving(what={what})" for what in FAILURES]
    with beside_tiny():
        made = planned(*techniques, backends=("eager",))
        sampling = replace(SAMPLING, timeout_s=2.0, processes=1)
        return ran(replace(made, sampling=sampling), tmp_path_factory.mktemp("failing"))


@pytest.fixture(scope="module")
def pointless(tmp_path_factory: pytest.TempPathFactory) -> Records:
    techniques = [name for name, _ in NO_EFFECT]
    with beside_tiny(BROKEN_TECHNIQUES):
        made = planned(*techniques, "distill", backends=("eager", "onnxruntime"))
        sampling = replace(SAMPLING, processes=1)
        return ran(replace(made, sampling=sampling), tmp_path_factory.mktemp("pointless"))


@pytest.mark.parametrize("what", FAILURES)
def test_a_variant_that_fails_in_the_middle_leaves_the_others_alone(failing: Records, what: str) -> None:
    failed = only(failing, "latency", technique=f"tiny:Misbehaving(what={what})")
    assert failed.status == "failed"
    assert FAILURES[what] in str(failed.reason)
    assert failed.series == ()
    if what == "raise":
        assert "in misbehave" in str(failed.traceback)
    assert only(failing, "latency", technique="fp32").status == "ok"


@pytest.mark.parametrize(("technique", "backend"), NO_EFFECT)
def test_a_technique_that_takes_no_effect_is_invalid_and_carries_no_number(
    pointless: Records, technique: str, backend: str
) -> None:
    invalid = only(pointless, "latency", technique=technique, backend=backend)
    assert invalid.status == "invalid"
    assert NO_EFFECT[technique, backend] in str(invalid.reason)
    assert invalid.series == ()
    assert only(pointless, "latency", technique="fp32", backend=backend).status == "ok"


def test_a_technique_that_does_not_apply_is_skipped_with_its_reason(pointless: Records) -> None:
    skipped = only(pointless, "latency", technique="distill", backend="eager")
    assert skipped.status == "skipped"
    assert "unsupported" in str(skipped.reason)
    assert "student" in str(skipped.reason)
