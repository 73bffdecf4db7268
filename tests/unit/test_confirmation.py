from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from leanmark import confirmation, plan
from leanmark.plan import Plan
from leanmark.protocol.messages import WorkloadSpec
from leanmark.reading import gate
from leanmark.reading.gate import Ruling
from leanmark.record import Case

CASE = Case(workload="mlp", technique="bf16")


def test_the_second_pass_has_another_seed_and_trains_to_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Plan] = []
    [rule] = gate.parse("worse:latency", plan.QUICK.thresholds)
    worse = Ruling(case=CASE, rule=rule, verdict="worse")

    class Campaign:
        path = Path("second.jsonl")

        def __init__(self, made: Plan, *_: Any) -> None:
            asked.append(made)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def run_all(self) -> None: ...

    monkeypatch.setattr(confirmation, "Campaign", Campaign)
    monkeypatch.setattr(confirmation, "_worse", lambda *_: [worse])
    made = Plan(
        workloads={"mlp": WorkloadSpec(name="mlp")},
        cases=(CASE.baseline(), CASE),
        sampling=replace(plan.QUICK, seed=4, target=0.97),
    )
    found = confirmation.confirmed(made, Path("first.jsonl"), [rule], Path("results"), lambda _: None)
    assert found == (worse,)
    assert (asked[0].sampling.seed, asked[0].sampling.target) == (5, None)
