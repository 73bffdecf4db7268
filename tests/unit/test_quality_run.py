"""Training runs to a quality target: whose turn it is, when they end, what is kept of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leanmark.errors import OutOfTime, Unsupported, UsageError, WorkerDied
from leanmark.measuring import quality_run as measuring
from leanmark.plan import FULL, QUICK, with_target
from leanmark.protocol.messages import Trained
from leanmark.reading import quality_run as reading
from leanmark.record import BASELINE

from .quality_trials import CASE, REACHED, RUN, Steady, in_turns, of, play, played, ready, trained


def test_time_and_energy_have_a_value_for_each_run() -> None:
    one = played(*REACHED, meter=Steady())
    took, joules = one.find("run_to_quality_s"), one.find("run_to_quality_j")
    assert took is not None
    assert joules is not None
    assert (one.pass_name, one.status, one.work) == ("quality_run", "ok", "w")
    assert took.values == (2.0, 3.0, 1.0)
    assert joules.values == pytest.approx((200.0, 300.0, 100.0))
    assert [block.uncertainty for block in joules.blocks] == pytest.approx([2.0, 3.0, 1.0])
    assert (joules.gain, joules.scope, joules.processes) == (0.05, "machine", 3)
    assert [run["epochs"] for run in one.executed["runs"]] == [2, 3, 1]


def test_one_run_that_does_not_get_there_leaves_no_number() -> None:
    one = played(REACHED[0], trained(0.5, 0.6, 0.89, 0.88), REACHED[2], meter=Steady())
    assert (one.status, one.series) == ("skipped", ())
    assert one.reason == "accuracy 90.0 % was not reached in 4 epochs by 1 of 3 runs, at best 89.0 %"
    assert one.executed["runs"][1]["qualities"] == [0.5, 0.6, 0.89, 0.88]


def test_a_budget_ends_the_runs_after_the_first() -> None:
    asked: list[float] = []

    def has_time_for(seconds: float) -> bool:
        asked.append(seconds)
        return seconds < 3.0

    one = played(*REACHED, has_time_for=has_time_for)
    assert asked == [2.0, 3.0]
    assert len(one.executed["runs"]) == 2
    assert "2 of 3 training runs to the target were made" in [each.message for each in one.findings]


def test_without_a_meter_there_is_the_time_alone() -> None:
    one = played(*REACHED)
    assert one.find("run_to_quality_j") is None
    assert one.find("run_to_quality_s") is not None
    found = reading.find(RUN, [one], CASE)
    assert found is not None
    assert found.refusal == "no energy of the training run: no meter of energy is available"


def test_a_worker_that_dies_is_a_failure_with_its_reason() -> None:
    one = played(REACHED[0], WorkerDied("the process was killed"))
    assert (one.status, one.series) == ("failed", ())
    assert "the process was killed" in str(one.reason)


@pytest.mark.parametrize(
    ("text", "target"), [("0.97", 0.97), ("97%", 0.97), (" 97.5% ", 0.975), ("1", 1.0), ("stated", "stated")]
)
def test_a_target_is_a_share_or_the_workloads_own(text: str, target: float | str) -> None:
    assert with_target(QUICK, text).target == target
    assert (QUICK.target, QUICK.target_seeds, FULL.target_seeds) == (None, 3, 5)


@pytest.mark.parametrize("text", ["0", "-0.5", "97", "150%", "high", "", "nan", "."])
def test_a_target_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a target is a quality above 0 and at most 1"):
        with_target(QUICK, text)


def test_chains_take_turns_with_one_seed_before_the_next() -> None:
    replies = [trained(0.95)] * 9
    records, asked = play(*replies, chains=(BASELINE, "bf16", "prune"))
    assert asked == [
        (BASELINE, 0), ("bf16", 0), ("prune", 0),
        ("bf16", 1), ("prune", 1), (BASELINE, 1),
        ("prune", 2), (BASELINE, 2), ("bf16", 2),
    ]  # fmt: skip
    assert len({one.contest for one in records.values()}) == 1
    took = records["prune"].find("run_to_quality_s")
    assert took is not None
    assert [block.order for block in took.blocks] == [2, 1, 0]


def test_a_chain_that_fails_takes_no_more_turns() -> None:
    replies = (trained(0.95), Unsupported("no layer is wide enough"), trained(0.95), trained(0.95))
    records, asked = play(*replies, chains=(BASELINE, "prune"))
    assert asked == [(BASELINE, 0), ("prune", 0), (BASELINE, 1), (BASELINE, 2)]
    assert records["prune"].status == "skipped"
    assert "no layer is wide enough" in str(records["prune"].reason)
    assert records[BASELINE].status == "ok"


def test_what_stops_the_baseline_stops_them_all() -> None:
    records, asked = play(Unsupported("comes trained"), chains=(BASELINE, "bf16", "prune"))
    assert (list(records), asked) == ([BASELINE], [(BASELINE, 0)])


def test_a_budget_that_is_spent_ends_the_turns_of_the_first_seed_too() -> None:
    left = iter((True, False, False))
    replies = [trained(0.95), trained(0.95)]
    records, asked = play(
        *replies, chains=(BASELINE, "bf16", "prune"), has_time_for=lambda seconds: next(left)
    )
    assert asked == [(BASELINE, 0), ("bf16", 0)]
    assert (records["prune"].status, records["prune"].reason) == ("skipped", str(OutOfTime()))
    assert records["bf16"].status == "ok"


def test_runs_that_ended_before_an_interruption_are_kept() -> None:
    replies = (trained(0.95), trained(0.95), trained(0.95), KeyboardInterrupt())
    records, asked = play(*replies, chains=(BASELINE, "bf16", "prune"), plan=replace(QUICK, target_seeds=2))
    assert asked == [(BASELINE, 0), ("bf16", 0), ("prune", 0), ("bf16", 1)]
    assert [len(one.executed["runs"]) for one in records.values()] == [1, 1, 1]
    records, _ = play(trained(0.95), KeyboardInterrupt(), chains=(BASELINE, "bf16"))
    assert list(records) == [BASELINE]


def test_only_what_trains_and_could_be_made_takes_part() -> None:
    wanted = ["prune", "int8", "bf16", "distill", "bf16", "tf32"]
    found = measuring.cases(replace(CASE, phase="inference", batch=32), {None: ready()}, wanted)
    # distill could not be made, int8 has no training step
    assert list(found) == [of(BASELINE), of("prune"), of("bf16")]


def test_it_trains_on_the_device_of_the_run() -> None:
    prepared = ready()
    prepared.ready["tf32"] = prepared.ready[BASELINE]
    gpu = replace(CASE, phase="inference", device="cuda")
    cases = list(measuring.cases(gpu, {None: prepared}, ["tf32", "int8"]))
    assert cases == [replace(of(name), device="cuda") for name in (BASELINE, "tf32")]
    records, _ = in_turns(*[trained(0.95)] * 6, cases=cases)
    assert {case.device for case in records} == {"cuda"}


OTHER = "0" * 12


def test_two_commits_train_in_turns_each_by_its_own_code() -> None:
    sides = {None: ready(), OTHER: ready()}
    cases = measuring.cases(CASE, sides, ["bf16"])
    assert {case: made is sides[case.commit] for case, made in cases.items()} == {
        of(BASELINE): True, of(BASELINE, OTHER): True, of("bf16"): True, of("bf16", OTHER): True,
    }  # fmt: skip
    both = [of(BASELINE), of(BASELINE, OTHER)]
    records, asked = in_turns(*[trained(0.95)] * 6, cases=both)
    there = f"fp32@{OTHER}"
    assert asked == [("fp32", 0), (there, 0), (there, 1), ("fp32", 1), ("fp32", 2), (there, 2)]
    assert len({one.contest for one in records.values()}) == 1


def test_what_stops_the_unchanged_model_of_one_commit_stops_only_that_commit() -> None:
    cases = [of(BASELINE), of(BASELINE, OTHER), of("bf16"), of("bf16", OTHER)]
    replies: list[Trained | BaseException] = [trained(0.95)] * 5
    replies[1] = WorkerDied("the process was killed")
    records, asked = in_turns(*replies, cases=cases, plan=replace(QUICK, target_seeds=2))
    assert asked == [("fp32", 0), (f"fp32@{OTHER}", 0), ("bf16", 0), ("bf16", 1), ("fp32", 1)]
    assert [one.status for one in records.values()] == ["ok", "failed", "ok"]
