"""``op:`` workloads: their names, what is planned for them, and the error that is their quality."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from leanmark import operations, plan
from leanmark.errors import BadPlan, UsageError
from leanmark.models import fidelity
from leanmark.models.artifact import Artifact, Samples
from leanmark.operations import Convolution, Linear
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import Case
from leanmark.worker.serve import load_workload


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("op:conv3x3-64x56", Convolution(channels=64, out_channels=64, kernel=3, size=56)),
        (
            "op:conv1x1-64-256x28-s2",
            Convolution(channels=64, out_channels=256, kernel=1, size=28, stride=2),
        ),
        (
            "op:depthwise3x3-384x14",
            Convolution(channels=384, out_channels=384, kernel=3, size=14, groups=384),
        ),
        ("op:linear-1024x4096", Linear(features=1024, out_features=4096)),
    ],
)
def test_names(name: str, operation: operations.Operation) -> None:
    assert operations.parse(name) == operation
    assert operations.named(name)
    assert Case(workload=name).workload == name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("op", "names no operator. Such names look like op:conv3x3-64x56, "),
        ("op:", "names no operator"),
        ("op:conv3x3-64", "names no operator"),
        ("op:linear-8x8-s2", "names no operator"),
        ("op:conv3x5-8x8", "sizes must be at least 1, and kernels square"),
        ("op:conv3x3-0x8", "sizes must be at least 1"),
        ("op:depthwise3x3-8-12x8", "12 filters are no multiple of 8 channels"),
    ],
)
def test_a_name_that_means_nothing(name: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}'.* ?{complaint}"):
        plan.make(plan.Selection(workloads=(WorkloadSpec(name=name),)), plan.QUICK)


def planned(name: str, **chosen: Any) -> set[tuple[str, str, str, int]]:
    selection = replace(plan.Selection(workloads=(WorkloadSpec(name=name),)), **chosen)
    cases = plan.make(selection, plan.QUICK).cases
    return {(one.technique, one.backend, one.phase, one.batch) for one in cases}


def test_libraries_meet_our_operators_in_inference() -> None:
    assert planned("op:conv3x3-8x8") == {
        ("fp32", "eager", "inference", 1),
        ("fp32", "onnxruntime", "inference", 1),
        ("channels_last", "eager", "inference", 1),
        ("kernels", "eager", "inference", 1),
    }
    assert ("w8", "eager", "inference", 4) in planned("op:linear-8x8", batches=(4,))
    with pytest.raises(BadPlan, match="a single operator is measured in inference only"):
        planned("op:linear-8x8", phases=("training",))


def test_no_operator_is_part_of_the_main_job() -> None:
    cases = plan.make(plan.Selection(), plan.QUICK).cases
    assert not any(operations.named(case.workload) for case in cases)
    for name in operations.SMALL_SET:
        operations.parse(name)


def test_the_keyword_kernels_selects_the_small_set(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--benchmark",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    found = subprocess.run(
        [*command, "-k", "kernels"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
    )
    items = [line for line in found.stdout.splitlines() if "::" in line]
    assert {line.split("::")[1].split("/")[0] for line in items} == set(operations.SMALL_SET)


def test_the_model_and_its_exact_outputs() -> None:
    workload = load_workload(WorkloadSpec(name="op:conv3x3-4-8x6-s2"))
    model, test = workload.model(), workload.dataset().test
    assert test.inputs.shape == (8, 4, 6, 6)
    assert test.targets.dtype == torch.float64
    with torch.no_grad():
        outputs = model(test.inputs)
    assert outputs.shape == test.targets.shape == (8, 8, 3, 3)
    assert isinstance(model.get_submodule("1"), nn.ReLU) and float(outputs.min()) == 0.0
    assert 0 < float((outputs - test.targets).abs().max()) < 1e-6
    again = load_workload(WorkloadSpec(name="op:conv3x3-4-8x6-s2")).model()
    assert again.get_parameter("0.weight").equal(model.get_parameter("0.weight"))


def test_quality_is_the_largest_error_against_float64(tmp_path: Path) -> None:
    inputs = np.zeros((2, 2), dtype=np.float32)
    exact = np.array([[1.0, -4.0], [2.0, 0.0]])
    samples = Samples(test_inputs=inputs, test_targets=exact, batch_inputs=inputs, batch_targets=inputs[:, 0])
    baseline = Artifact.of(tmp_path, "fp32")
    baseline.folder.mkdir(parents=True)
    np.save(baseline.outputs_file, exact.astype(np.float32))
    outputs = np.array([[1.0, -4.0], [2.5, 0.25]], dtype=np.float32)
    quality = fidelity.judge(outputs, samples, tmp_path, error=0.1)
    assert (quality.metric, quality.direction, quality.count) == ("max_error", "lower", 2)
    assert quality.value == 0.5 / 4.0
    assert quality.correct is None
