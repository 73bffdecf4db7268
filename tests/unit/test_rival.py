from __future__ import annotations

from dataclasses import replace

from leanmark import plan
from leanmark.plan import QUICK, Selection
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import Case
from leanmark.reference import reference_among
from leanmark.rival import Rival

OTHER = "0123456789ab"
CASE = Case(workload="cnn")


def test_the_same_case_at_the_other_commit_is_the_reference() -> None:
    twin = replace(CASE, commit=OTHER)
    pruned, its_twin = replace(CASE, technique="prune"), replace(CASE, technique="prune", commit=OTHER)
    measured = [twin, CASE, its_twin, pruned]
    assert reference_among(CASE, measured) == twin
    assert reference_among(pruned, measured) == its_twin
    assert reference_among(pruned, [CASE, twin]) == CASE


def test_the_other_commit_is_compared_to_nothing_and_a_sentinel_to_its_own_baseline() -> None:
    twin, sentinel = replace(CASE, commit=OTHER), replace(CASE, sentinel=True)
    assert reference_among(twin, [twin, CASE]) is None
    assert reference_among(replace(twin, technique="prune"), [twin, CASE]) is None
    assert reference_among(sentinel, [twin, CASE, sentinel]) == CASE


def test_twins_share_a_contest_and_not_a_name() -> None:
    twin = replace(CASE, commit=OTHER)
    assert twin.pair_key == CASE.pair_key
    assert (CASE.label, twin.label) == ("fp32", "fp32@0123456789ab")
    assert twin.id == "cnn/inference/b1/fp32@0123456789ab/eager/cpu/t1"


def test_a_rival_is_named_as_it_was_asked_for() -> None:
    assert str(Rival(ref="main", commit=OTHER)) == "main (0123456789ab)"
    assert str(Rival(ref="012345", commit=OTHER)) == OTHER


def against(*techniques: str) -> plan.Plan:
    selection = Selection(
        workloads=(WorkloadSpec(name="mlp"),), techniques=techniques, phases=("inference",), batches=(1,)
    )
    return plan.against(selection, QUICK, OTHER)


def test_without_techniques_the_unchanged_model_meets_itself_at_the_other_commit() -> None:
    assert [f"{case.label}/{case.backend}" for case in against().cases] == [
        "fp32@0123456789ab/eager",
        "fp32/eager",
        "fp32-again/eager",
        "fp32@0123456789ab/onnxruntime",
        "fp32/onnxruntime",
    ]


def test_a_second_pass_brings_the_twin_of_what_it_doubts() -> None:
    made = against("bf16")
    doubted = next(case for case in made.cases if case.technique == "bf16" and not case.commit)
    kept = plan.restrict(made, [doubted]).cases
    assert replace(doubted, commit=OTHER) in kept
    assert {case.backend for case in kept} == {"eager"}
