"""Is it still the same model? Outputs and predictions against the model it was made from. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leanmark import chain
from leanmark.errors import TookNoEffect, Unsupported
from leanmark.models.artifact import Artifact, Samples
from leanmark.record import BASELINE, Case, Quality

EXACT = 1e-3
"""Largest relative error of a model that should compute the same thing another way (fp32, any backend)."""

CHANCE_MARGIN = 2.0
"""A classifier that is not at least this many times better than guessing is garbage."""

Floats = NDArray[np.float32]


def anchor(text: str) -> tuple[str, float]:
    """The part of a chain whose float outputs the rest must keep, and how closely.

    Techniques that retrain change the function on purpose; those after the last such one must not.
    """
    links = list(chain.parse(text))
    tolerance = EXACT
    while links and not (technique := chain.build(links[-1])).retrains:
        tolerance = max(tolerance, technique.tolerance)
        links.pop()
    if links:  # what retrains may still run in fewer bits than it was trained in
        tolerance = max(tolerance, technique.tolerance)
    return chain.spell(tuple(links)), tolerance


def relative_error(outputs: Floats, expected: Floats) -> float:
    """L2 norm of the difference over the L2 norm of ``expected``."""
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(outputs - expected)) / max(norm, 1e-12)


def check(case: Case, outputs: Floats, folder: Path) -> float:
    """The relative error of ``outputs`` (the first N test samples) against the anchor's.

    Raises:
        TookNoEffect: the outputs are not finite, of another shape, or further off than allowed.
    """
    name, tolerance = anchor(case.technique)
    expected = Artifact.of(folder, name).load_outputs()[: len(outputs)]
    if outputs.shape != expected.shape:
        raise TookNoEffect(f"outputs have shape {outputs.shape}, those of {name} {expected.shape}")
    if not np.isfinite(outputs).all():
        raise TookNoEffect("outputs are not finite")
    error = relative_error(outputs, expected)
    if error > tolerance:
        raise TookNoEffect(
            f"outputs are off by {error:.2g} of those of {name}; {case.technique} on {case.backend} "
            f"may change them by {tolerance:g}"
        )
    return error


def check_float32(operators: Mapping[str, int]) -> None:
    """Nothing asked for another dtype than float32.

    Raises:
        TookNoEffect: an operator computed in one all the same.
    """
    other = sorted(name for name in operators if "[" in name and not name.endswith("[float32]"))
    if other:
        raise TookNoEffect(f"no technique lowers the precision, but these ran: {', '.join(other)}")


def judge(
    outputs: Floats, samples: Samples, folder: Path, error: float, rival: Artifact | None = None
) -> Quality:
    """Quality on the test set: accuracy for class targets, R² for others, the largest error over the
    largest output for exact ones (float64); where the test set has no
    targets, since the weights are random, how often the model says the same as the unchanged one.

    With ``rival``, the same model at another commit, that one takes the place of the unchanged model.

    Raises:
        TookNoEffect: a classifier no better than guessing, made from one that was.
    """
    baseline = (rival or Artifact.of(folder, BASELINE)).load_outputs()
    if not samples.test_targets.size:
        return _agreement(outputs, baseline, error)
    if samples.test_targets.dtype == np.float64:
        return _against_exact(outputs, samples, error)
    if samples.test_targets.dtype.kind == "f":
        return _regression(outputs, samples, error)
    predicted, reference = outputs.argmax(-1), baseline.argmax(-1)
    right, was_right = predicted == samples.test_targets, reference == samples.test_targets
    quality = Quality(
        metric="accuracy",
        value=float(right.mean()),
        count=right.size,
        correct=int(right.sum()),
        gained=int((right & ~was_right).sum()),
        lost=int((~right & was_right).sum()),
        agreement=float((predicted == reference).mean()),
        relative_error=error,
    )
    classes = outputs.shape[-1]
    if was_right.mean() > CHANCE_MARGIN / classes >= quality.value:
        raise TookNoEffect(
            f"accuracy {quality.value:.1%} is close to guessing among {classes} classes, "
            f"and the unchanged model has {was_right.mean():.1%}"
        )
    return quality


def metric(targets: NDArray[Any]) -> Literal["accuracy", "r2"]:
    """What tells the quality of a model by itself: for class ``targets``, or for float32 ones.

    Raises:
        Unsupported: only another model's outputs, or exact ones, would tell.
    """
    if targets.size and targets.dtype.kind in "iu":
        return "accuracy"
    if targets.size and targets.dtype == np.float32:
        return "r2"
    raise Unsupported("its test set has no targets that a training run could be judged by")


def held_out(outputs: Floats, targets: NDArray[Any]) -> float:
    """The quality of ``outputs`` [N, ...] by that metric."""
    if metric(targets) == "r2":
        return _r2(outputs, targets)
    return float((outputs.argmax(-1) == targets).mean())


def _agreement(outputs: Floats, baseline: Floats, error: float) -> Quality:
    same = outputs.argmax(-1) == baseline.argmax(-1)
    return Quality(
        metric="agreement",
        value=float(same.mean()),
        count=same.size,
        correct=int(same.sum()),
        gained=0,
        lost=int((~same).sum()),
        agreement=float(same.mean()),
        relative_error=error,
    )


def _against_exact(outputs: Floats, samples: Samples, error: float) -> Quality:
    """Targets in float64 are what the outputs would be without rounding."""
    largest = float(np.abs(outputs - samples.test_targets).max())
    return Quality(
        metric="max_error",
        value=largest / max(float(np.abs(samples.test_targets).max()), 1e-12),
        count=len(outputs),
        direction="lower",
        relative_error=error,
    )


def _regression(outputs: Floats, samples: Samples, error: float) -> Quality:
    targets = samples.test_targets
    return Quality(metric="r2", value=_r2(outputs, targets), count=len(targets), relative_error=error)


def _r2(outputs: Floats, targets: NDArray[Any]) -> float:
    residual = float(((outputs.reshape(targets.shape) - targets) ** 2).sum())
    spread = float(((targets - targets.mean()) ** 2).sum())
    return 1 - residual / max(spread, 1e-12)
