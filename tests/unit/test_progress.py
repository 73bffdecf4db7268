"""The rough account of how far a run is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leanmark import plan
from leanmark.progress import Account, Progress
from leanmark.protocol.messages import WorkloadSpec


def totals(target: float | None) -> float:
    selection = plan.Selection(
        workloads=(WorkloadSpec(name="mlp"),), techniques=("bf16",), backends=("eager",), phases=("training",)
    )
    told: list[Progress] = []
    sampling = replace(plan.QUICK, target=target, target_seeds=3)
    Account(plan.make(selection, sampling), told.append).begin("preparing", "prepare")
    return told[0].total


def test_runs_to_a_target_are_part_of_what_is_to_be_done() -> None:
    """Two chains, three runs of each, and making a model is the unit of all of them."""
    assert totals(0.97) - totals(None) == pytest.approx(2 * 3 * 3.0)
