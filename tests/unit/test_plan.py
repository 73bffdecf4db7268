from __future__ import annotations

import math
from itertools import pairwise

import pytest

from leanmark import plan
from leanmark.errors import BadPlan, UnknownName, UsageError
from leanmark.plan import FULL, QUICK, Selection
from leanmark.protocol.messages import WorkloadSpec

CNN = (WorkloadSpec(name="cnn"),)


def made(**axes: object) -> list[str]:
    selection = Selection(workloads=CNN, **axes)  # type: ignore[arg-type]
    return [
        f"{case.label}/{case.backend}/{case.phase}/{case.batch}" for case in plan.make(selection, QUICK).cases
    ]


def test_a_candidate_brings_its_baseline_on_its_backend_and_the_plain_one() -> None:
    assert made(techniques=("int8",), batches=(1,)) == [
        "fp32/eager/inference/1",
        "fp32-again/eager/inference/1",
        "fp32/onnxruntime/inference/1",
        "int8/onnxruntime/inference/1",
    ]


def test_training_is_left_to_backends_and_techniques_that_have_it() -> None:
    assert made(techniques=("int8", "prune"), phases=("training",)) == [
        "fp32/eager/training/32",
        "fp32-again/eager/training/32",
        "prune/eager/training/32",
    ]


def test_the_main_job_covers_four_workloads_and_six_techniques() -> None:
    cases = plan.make(Selection(), QUICK).cases
    assert {case.workload for case in cases} == {"cnn", "mlp", "lstm", "transformer"}
    assert {case.technique for case in cases} == set(plan.TECHNIQUES)
    assert len(set(cases)) == len(cases)


def test_cases_of_one_contest_stand_together() -> None:
    keys = [case.pair_key for case in plan.make(Selection(), QUICK).cases]
    changes = sum(one != other for one, other in pairwise(keys))
    assert changes == len(set(keys)) - 1


def test_what_was_named_and_is_in_no_case_is_told() -> None:
    def told(**axes: object) -> tuple[str, ...]:
        return plan.make(Selection(workloads=CNN, **axes), QUICK).left_out  # type: ignore[arg-type]

    [int8] = told(techniques=("int8", "prune"), phases=("training",), backends=("eager",))
    assert int8.startswith("int8 is left out: int8 has no training on eager: ")
    [openvino] = told(backends=("eager", "openvino"), phases=("training",))
    assert openvino.startswith("openvino is left out: openvino has no training on cpu: ")
    assert told(techniques=("int8", "prune")) == ()
    assert told() == ()


def test_nothing_left_says_who_ruled_it_out() -> None:
    with pytest.raises(BadPlan, match="int8 has no training on eager"):
        made(techniques=("int8",), phases=("training",), backends=("eager",))


def test_what_no_order_of_techniques_can_do_is_told_before_anything_is_measured() -> None:
    with pytest.raises(BadPlan, match=r": in int8\+prune, int8 ends what torch can change: put it last$"):
        made(techniques=("int8+prune",))
    assert made(techniques=("prune+int8",), backends=("onnxruntime",), phases=("inference",))


def test_each_device_has_4_bit_weights_of_its_own_and_names_the_other() -> None:
    axes = {"backends": ("eager",), "phases": ("inference",)}
    with pytest.raises(BadPlan, match="w4a8 has no inference on cuda: .*; for GPUs there is w4"):
        made(techniques=("w4a8",), device="cuda", gpu="GPU-1", **axes)
    with pytest.raises(BadPlan, match="w4 has no inference on cpu: .*; for processors there is w4a8"):
        made(techniques=("w4",), **axes)


@pytest.mark.parametrize("technique", ["kernels", "w8", "w4", "int8-exact", "sparse(block=64)"])
def test_our_operators_are_offered_on_a_gpu(technique: str) -> None:
    axes = {"backends": ("eager",), "phases": ("inference",), "batches": (1,)}
    found = made(techniques=(technique,), device="cuda", gpu="GPU-1", **axes)
    assert found[-1] == f"{technique}/eager/inference/1"


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"workloads": (WorkloadSpec(name="cnm"),)}, "Unknown workload 'cnm'. Did you mean cnn"),
        ({"techniques": ("int9",)}, "Unknown technique 'int9'. Did you mean int8"),
        ({"backends": ("onnx",)}, "Unknown backend 'onnx'. Did you mean onnxruntime"),
        ({"device": "gpu"}, "Unknown device 'gpu'"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(axes: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        plan.make(Selection(**axes), QUICK)  # type: ignore[arg-type]


def test_a_users_own_workload_is_not_looked_up() -> None:
    spec = WorkloadSpec(name="my_package.models:resnet", data="my_package.models:loaders")
    cases = plan.make(Selection(workloads=(spec,), techniques=("prune",)), QUICK).cases
    assert {case.workload for case in cases} == {"my_package.models:resnet"}


def test_a_quick_look_has_one_sentinel_a_workload_and_a_full_one_one_a_contest() -> None:
    for sampling, expected in ((QUICK, 4), (FULL, 12)):
        cases = plan.make(Selection(), sampling).cases
        assert sum(case.sentinel for case in cases) == expected


def test_a_selection_keeps_what_it_is_compared_to() -> None:
    whole = plan.make(Selection(workloads=CNN), QUICK)
    int8 = next(case for case in whole.cases if case.technique == "int8" and case.batch == 1)
    kept = plan.restrict(whole, [int8]).cases
    assert [case.label for case in kept] == ["fp32", "fp32-again", "fp32", "int8"]


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400)])
def test_a_budget_is_a_duration(text: str, seconds: float) -> None:
    sampling = plan.with_budget(QUICK, text)
    assert sampling.budget_s == seconds
    assert sampling.max_processes > sampling.processes


@pytest.mark.parametrize("text", ["5", "m", "0s", "five minutes", "-3m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a budget is a duration such as 90s"):
        plan.with_budget(QUICK, text)


def test_a_budget_too_small_for_the_first_look_says_what_it_takes() -> None:
    whole = plan.make(Selection(workloads=CNN), plan.with_budget(QUICK, "1s"))
    least_s = len(whole.cases) * QUICK.processes * QUICK.rounds * QUICK.block_s
    assert least_s > 1
    with pytest.raises(BadPlan, match=f"a budget of 1 s is too small: .* at least {math.ceil(least_s)} s"):
        plan.check_budget(whole)
    plan.check_budget(plan.make(Selection(workloads=CNN), plan.with_budget(QUICK, "1m")))
    plan.check_budget(plan.make(Selection(workloads=CNN), QUICK))


@pytest.mark.parametrize("hz", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_request_rate_is_above_0_and_finite(hz: float) -> None:
    with pytest.raises(UsageError, match="a request rate is a number of requests per second above 0, not"):
        plan.with_request_rate(QUICK, hz)
    assert plan.with_request_rate(QUICK, 20.0).request_rate == 20.0
