"""Is it still the same model? Every answer on outputs small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanmark.errors import TookNoEffect
from leanmark.models import fidelity
from leanmark.models.artifact import Artifact, Samples
from leanmark.record import Case

TARGETS = np.array([0, 1, 2, 3], dtype=np.int64)
OUTPUTS = 4.0 * np.eye(4, dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inputs = np.zeros((4, 2), dtype=np.float32)
    Samples(test_inputs=inputs, test_targets=TARGETS, batch_inputs=inputs, batch_targets=TARGETS).save(
        tmp_path
    )
    for name, outputs in {"fp32": OUTPUTS, "prune": 2 * OUTPUTS}.items():
        artifact = Artifact.of(tmp_path, name)
        artifact.folder.mkdir()
        np.save(artifact.outputs_file, outputs)
    return tmp_path


def case(technique: str) -> Case:
    return Case(workload="w", technique=technique)


@pytest.mark.parametrize(
    ("chain", "anchor", "tolerance"),
    [
        ("fp32", "fp32", fidelity.EXACT),
        ("int8", "fp32", 0.25),
        ("prune", "prune", fidelity.EXACT),
        ("prune+int8", "prune", 0.25),
        ("prune+bf16", "prune", 0.05),
    ],
)
def test_what_retrains_sets_a_new_anchor(chain: str, anchor: str, tolerance: float) -> None:
    assert fidelity.anchor(chain) == (anchor, tolerance)


def test_outputs_within_the_tolerance_pass_with_their_error(folder: Path) -> None:
    assert fidelity.check(case("int8"), OUTPUTS * np.float32(1.1), folder) == pytest.approx(0.1)
    # after pruning the pruned model is the measure, not the unchanged one
    assert fidelity.check(case("prune+int8"), 2 * OUTPUTS, folder) == 0.0


@pytest.mark.parametrize(
    ("technique", "outputs", "message"),
    [
        ("fp32", OUTPUTS * np.float32(1.01), "off by 0.01 of those of fp32"),
        ("int8", -OUTPUTS, "off by 2 of those of fp32"),
        ("int8", OUTPUTS * np.float32(np.nan), "not finite"),
        ("int8", OUTPUTS[:, :3], "shape"),
    ],
)
def test_garbage_is_refused(folder: Path, technique: str, outputs: fidelity.Floats, message: str) -> None:
    with pytest.raises(TookNoEffect, match=message):
        fidelity.check(case(technique), outputs, folder)


def test_quality_counts_what_was_gained_and_lost(folder: Path) -> None:
    outputs = OUTPUTS.copy()
    outputs[3] = [9, 0, 0, 0]
    quality = fidelity.judge(outputs, Samples.load(folder), folder, 0.5)
    assert (quality.value, quality.correct, quality.gained, quality.lost) == (0.75, 3, 0, 1)
    assert quality.agreement == 0.75


def test_a_classifier_that_guesses_is_invalid(folder: Path) -> None:
    outputs = np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (4, 1))
    with pytest.raises(TookNoEffect, match=r"accuracy 25\.0% is close to guessing among 4 classes"):
        fidelity.judge(outputs, Samples.load(folder), folder, 0.5)


def test_regression_is_judged_by_its_explained_variance(tmp_path: Path) -> None:
    targets = np.array([[1.0], [2.0], [3.0]], dtype=np.float32)
    Samples(test_inputs=targets, test_targets=targets, batch_inputs=targets, batch_targets=targets).save(
        tmp_path
    )
    artifact = Artifact.of(tmp_path, "fp32")
    artifact.folder.mkdir()
    np.save(artifact.outputs_file, targets)
    quality = fidelity.judge(targets + np.float32(0.5), Samples.load(tmp_path), tmp_path, 0.1)
    assert quality.metric == "r2"
    assert quality.value == pytest.approx(1 - 0.75 / 2)
    assert quality.correct is None


def test_a_dtype_nobody_asked_for_is_caught() -> None:
    fidelity.check_float32({"addmm[float32]": 2, "Gemm": 1})
    with pytest.raises(TookNoEffect, match=r"these ran: mm\[bfloat16\]"):
        fidelity.check_float32({"addmm[float32]": 2, "mm[bfloat16]": 1})


def test_without_right_answers_a_model_is_compared_with_the_unchanged_one(folder: Path) -> None:
    inputs = np.zeros((4, 2), dtype=np.float32)
    nothing = np.empty(0, dtype=np.int64)
    samples = Samples(test_inputs=inputs, test_targets=nothing, batch_inputs=inputs, batch_targets=TARGETS)
    outputs = OUTPUTS.copy()
    outputs[3] = [9, 0, 0, 0]
    quality = fidelity.judge(outputs, samples, folder, 0.5)
    assert (quality.metric, quality.value, quality.correct, quality.gained, quality.lost) == (
        "agreement", 0.75, 3, 0, 1,
    )  # fmt: skip
