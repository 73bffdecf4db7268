from __future__ import annotations

from leanmark.measuring import prepare_pass
from leanmark.record import Case


def test_every_chain_comes_after_those_it_is_built_on() -> None:
    assert prepare_pass.chains(["prune+int8", "distill+prune+bf16", "fp32"]) == [
        "fp32",
        "prune",
        "distill",
        "prune+int8",
        "distill+prune",
        "distill+prune+bf16",
    ]


def test_a_chain_is_built_for_the_backends_of_those_that_continue_it() -> None:
    cases = [
        Case(workload="w", technique="prune", backend="eager"),
        Case(workload="w", technique="prune+int8", backend="onnxruntime"),
        Case(workload="w", technique="bf16", backend="other"),
    ]
    assert prepare_pass.backends_for("prune", cases) == ("eager", "onnxruntime")
    assert prepare_pass.backends_for("fp32", cases) == ("eager", "onnxruntime", "other")
