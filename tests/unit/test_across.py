"""Training to a quality target in two stored runs, as `compare` and `gate --since` see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark.errors import NotComparable
from leanmark.reading import across, gate
from leanmark.record import DOMAIN_LOST, Case, Comparison, Finding
from leanmark.store import Records

from . import synthetic

CASE = Case(workload="mlp", technique="bf16", phase="training")
OTHER = replace(CASE, technique="prune")
FAST, SLOW = (1.0, 1.1, 0.9, 1.05, 0.95), (2.0, 2.2, 1.8, 2.1, 1.9)


def run(seconds: Sequence[float], *, id: str = "7f3a", target: float = 0.97) -> Records:
    """A run that trained to ``target`` in so many seconds."""
    measurement = synthetic.to_target(CASE, seconds, run=id, target=target)
    path = Path(f"{id}.jsonl")
    return Records(path=path, run=synthetic.run(id=id), measurements=(measurement,), findings=())


def found(older: Records, newer: Records) -> dict[str, Comparison]:
    return {one.metric: one for one in across.compare_runs(older, newer)}


def rulings(older: Records, newer: Records, text: str) -> list[tuple[str, str, str | None]]:
    return [(one.rule.metric, one.verdict, one.reason) for one in gate.since(older, newer, gate.parse(text))]


def test_five_seeds_on_both_sides_give_a_ratio_with_an_interval() -> None:
    compared = found(run(FAST), run(SLOW, id="8a4b"))
    assert list(compared) == ["run_to_quality_s", "run_to_quality_j"]
    for one in compared.values():
        assert one.ratio is not None
        assert one.ratio.value == pytest.approx(2.0)
        assert 1.7 < one.ratio.low < 2.0 < one.ratio.high < 2.3
        assert (one.ratio.scope, one.verdict, one.pairs) == ("across-processes", "worse", 0)


def test_fewer_seeds_give_neither_ratio_nor_verdict() -> None:
    compared = found(run(FAST), run(SLOW[:3], id="8a4b"))["run_to_quality_s"]
    assert (compared.ratio, compared.verdict) == (None, "inconclusive")
    assert compared.reason == "not enough seeds: 3 of the 5 that an interval needs"


def test_other_targets_are_not_compared() -> None:
    compared = found(run(FAST), run(SLOW, id="8a4b", target=0.9))["run_to_quality_s"]
    assert (compared.ratio, compared.verdict) == (None, "inconclusive")
    assert compared.reason == "trained to different targets: 0.97 and 0.9"


def test_energies_of_other_parts_of_the_machine_are_not_compared() -> None:
    newer = run(SLOW, id="8a4b")
    lost = Finding(code=DOMAIN_LOST, message="it is stuck", without="package-0/dram")
    part = replace(newer, measurements=(replace(newer.measurements[0], findings=(lost,)),))
    compared = found(run(FAST), part)
    assert compared["run_to_quality_s"].verdict == "worse"
    assert compared["run_to_quality_j"].reason == (
        "the energies are not of the same parts: its own is without package-0/dram"
    )


def test_a_gate_judges_it_by_the_rules_about_latency_and_energy() -> None:
    older, newer = run(FAST), run(SLOW, id="8a4b")
    assert rulings(older, newer, "worse:latency,memory,energy") == [
        ("latency", "worse", "training to its target"),
        ("energy", "worse", "training to its target"),
    ]
    assert rulings(older, newer, "worse:latency=99%") == [
        ("latency", "inconclusive", "training to its target: ratio 2.00× [1.78, 2.25]")
    ]
    assert rulings(newer, older, "worse:energy") == [("energy", "better", "training to its target")]
    assert rulings(older, newer, "worse:memory") == []
    [(_, verdict, reason)] = rulings(older, run(SLOW[:4], id="8a4b"), "worse:latency")
    assert verdict == "inconclusive"
    assert reason == "training to its target: not enough seeds: 4 of the 5 that an interval needs"


def test_a_target_that_is_no_longer_reached_is_told() -> None:
    newer = run(SLOW, id="8a4b")
    missed = replace(newer.measurements[0], status="skipped", reason="97 % was not reached", series=())
    newer = replace(newer, measurements=(missed,))
    compared = found(run(FAST), newer)["run_to_quality_s"]
    assert (compared.ratio, compared.verdict) == (None, "inconclusive")
    assert compared.reason == f"{CASE.id}: 97 % was not reached"
    [(_, verdict, reason)] = rulings(run(FAST), newer, "worse:latency")
    assert (verdict, reason) == ("inconclusive", f"training to its target: {compared.reason}")


def test_a_run_that_failed_this_time_is_invalid() -> None:
    newer = run(SLOW, id="8a4b")
    failed = replace(newer.measurements[0], status="failed", reason="its accuracy was nan", series=())
    newer = replace(newer, measurements=(failed, synthetic.to_target(OTHER, SLOW, run="8a4b")))
    older = run(FAST)
    older = replace(older, measurements=(*older.measurements, synthetic.to_target(OTHER, FAST)))
    assert rulings(older, newer, "worse:latency") == [
        ("latency", "invalid", "training to its target: failed: its accuracy was nan"),
        ("latency", "worse", "training to its target"),
    ]


def test_a_training_run_that_failed_takes_no_verdict_from_the_latency_of_that_case() -> None:
    """Its case is that of one step of training in batches of one."""
    trained = synthetic.to_target(CASE, FAST)
    fast, slow = (
        replace(trained, pass_name="latency", series=(synthetic.latency(value),)) for value in (1.0, 2.0)
    )
    failed = replace(trained, status="failed", reason="its accuracy was nan", series=())
    older = replace(run(FAST), measurements=(fast, trained))
    newer = replace(run(FAST, id="8a4b"), measurements=(replace(slow, run="8a4b"), failed))
    assert rulings(older, newer, "worse:latency") == [
        ("latency", "invalid", "training to its target: failed: its accuracy was nan"),
        ("latency", "worse", None),
    ]


def test_runs_whose_only_common_case_failed_this_time_say_why() -> None:
    newer = run(SLOW, id="8a4b")
    failed = replace(newer.measurements[0], status="failed", reason="its accuracy was nan", series=())
    newer = replace(newer, measurements=(failed,))
    assert rulings(run(FAST), newer, "worse:latency,flops") == [
        ("latency", "invalid", "training to its target: failed: its accuracy was nan"),
        ("flops", "invalid", "training to its target: failed: its accuracy was nan"),
    ]
    with pytest.raises(NotComparable, match="no measured case in common"):
        rulings(run(FAST), replace(newer, measurements=()), "worse:latency")


def test_too_wide_an_interval_says_how_many_seeds_would_do() -> None:
    noisy = run((1.0, 1.6, 0.7, 1.3, 1.05), id="8a4b")
    compared = found(run(FAST), noisy)["run_to_quality_s"]
    assert compared.verdict == "inconclusive"
    assert str(compared.reason).startswith("5 seeds seen, about ")
