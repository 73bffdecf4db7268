"""Training runs to a quality target: when they end, what is kept of them, what is said."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from leanmark import store
from leanmark.errors import OutOfTime, Unsupported, UsageError, WorkerDied
from leanmark.measuring import quality_run as measuring
from leanmark.measuring import schedule
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.prepare_pass import Prepared
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.plan import FULL, QUICK, with_target
from leanmark.protocol import messages
from leanmark.protocol.messages import Notice, Ready, Trained, WorkloadSpec
from leanmark.reading import quality_run as reading
from leanmark.reading import tabulate
from leanmark.record import BASELINE, DOMAIN_LOST, Case, Finding, Measurement, Provenance, SamplingPlan
from leanmark.report.console import rendered
from leanmark.report.details import details
from leanmark.store import RunWriter

from . import synthetic

CASE = Case(workload="tiny", phase="training")
CHAINS = ("bf16", "prune", "prune+bf16", "int8")
STEPS = 19
RUN = synthetic.run()


class Steady(Meter[None]):
    """100 W, known to 1 %, by a sensor that is 5 % off."""

    unit, scope = "j", "machine"
    provenance = Provenance.MEASURED_COUNTER
    resolution = min_window_s = 0.0

    def unavailable(self) -> str | None:
        return None

    def start(self) -> None:
        return None

    def stop(self, token: None) -> Stopped:
        evidence = Evidence(source="s", gain=0.05)
        return partial(Reading, value=100.0, duration_s=1.0, uncertainty=1.0, evidence=evidence)


class Guess(Steady):
    provenance = Provenance.ESTIMATED_MODEL


class Script:
    """A launcher whose workers answer with ``replies``, one each."""

    def __init__(self, replies: Sequence[Trained | BaseException]) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, int]] = []
        self.devices: set[str] = set()

    def server(self, layout: object, source: object) -> Script:
        return self

    def fork(self) -> Script:
        return self

    def ask(self, request: messages.TrainToQuality, timeout_s: float, notice: Callable[..., None]) -> Trained:
        self.asked.append((request.chain, request.seed))
        self.devices.add(request.device)
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        notice(Notice("begins"))
        notice(Notice("ended"))
        return reply

    def close(self) -> None:
        return None


def trained(*qualities: float, time_s: float = 2.0) -> Trained:
    return Trained(
        metric="accuracy", target=0.9, reached=qualities[-1] >= 0.9, qualities=qualities,
        epochs=len(qualities), longest=4, steps=STEPS * len(qualities), time_s=time_s, looking_s=0.1 * time_s,
    )  # fmt: skip


def ready() -> Prepared:
    made = Ready(work="w", work_parts={}, time_s=1.0, model={}, refusals={}, verified={}, doubts=())
    chains = dict.fromkeys((BASELINE, *CHAINS), made)
    return Prepared(folder=Path(), spec=WorkloadSpec(name="tiny"), ready=chains)


def play(
    *replies: Trained | BaseException,
    meter: Meter[Any] | None = None,
    has_time_for: Callable[[float], bool] = lambda seconds: True,
    chains: Sequence[str] = (BASELINE,),
    plan: SamplingPlan = QUICK,
) -> tuple[dict[str, Measurement], list[tuple[str, int]]]:
    """The records by chain, and who was asked for which seed."""
    records, asked = in_turns(
        *replies, cases=[of(name) for name in chains], meter=meter, has_time_for=has_time_for, plan=plan
    )
    return {case.technique: one for case, one in records.items()}, asked


def in_turns(
    *replies: Trained | BaseException,
    cases: Sequence[Case],
    meter: Meter[Any] | None = None,
    has_time_for: Callable[[float], bool] = lambda seconds: True,
    plan: SamplingPlan = QUICK,
) -> tuple[dict[Case, Measurement], list[tuple[str, int]]]:
    """The records by case, and who was asked for which seed."""
    replicas = [schedule.replica(plan, 1, (0,), seed) for seed in range(plan.target_seeds)]
    trials = measuring.Trials(cases={case: ready() for case in cases}, replicas=replicas, target=0.9)
    script, found = Script(replies), dict[Case, measuring.Played]()
    turns: list[tuple[str, int]] = []
    with contextlib.suppress(KeyboardInterrupt):
        trials.play(
            found,
            cast(Launcher, script),
            meter,
            has_time_for,
            lambda case, seed: turns.append((case.label, seed)),
        )
    assert [chain.partition("@")[0] for chain, _ in turns] == [chain for chain, _ in script.asked]
    assert script.devices == {case.device for case in cases}
    return {case: measuring.record("run", case, trials, one) for case, one in found.items()}, turns


def of(technique: str, commit: str | None = None) -> Case:
    return replace(CASE, technique=technique, commit=commit)


def played(*replies: Trained | BaseException, **how: Any) -> Measurement:
    """The record of the baseline alone."""
    records, asked = play(*replies, **how)
    assert asked == [(BASELINE, seed) for seed in range(len(asked))]
    return records[BASELINE]


REACHED = (trained(0.5, 0.92), trained(0.6, 0.7, 0.91, time_s=3.0), trained(0.95, time_s=1.0))


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


def test_reading_finds_the_run_of_a_baseline_and_sums_it_up() -> None:
    one = played(*REACHED, meter=Steady())
    found = reading.find(RUN, [one], replace(CASE, phase="inference", batch=32, backend="onnxruntime"))
    assert found is not None
    assert found.time is not None
    assert found.energy is not None
    assert (found.metric, found.target, found.epochs, found.longest) == ("accuracy", 0.9, (2, 3, 1), 4)
    assert (found.time.summary.value, found.time.least, found.time.most) == (2.0, 1.0, 3.0)
    assert found.time.summary.interval is None  # three runs are too few for one
    assert found.energy.summary.value == pytest.approx(200.0)
    assert found.energy.doubt == pytest.approx(200.0 * math.hypot(0.01, 0.05))
    assert found.looking == pytest.approx(0.1)
    assert reading.find(RUN, [one], replace(CASE, technique="prune")) is None
    assert reading.find(RUN, [one], replace(CASE, workload="other")) is None
    assert reading.find(RUN, [one], replace(CASE, commit="abc1234")) is None


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


def compared(
    baseline: Sequence[float], technique: Sequence[float], meter: Meter[Any] | None = None
) -> tuple[dict[str, str], str]:
    """Details of the technique's row, where runs took so many seconds, and the terminal's text."""
    pairs = list(zip(baseline, technique, strict=True))
    turns = [pair if seed % 2 == 0 else pair[::-1] for seed, pair in enumerate(pairs)]
    replies = [trained(0.5, 0.95, time_s=one) for turn in turns for one in turn]
    name = "prune(ratio=0.5)"
    plan = FULL if len(pairs) == FULL.target_seeds else QUICK
    records, _ = play(*replies, chains=(BASELINE, name), plan=plan, meter=meter)
    return lines(*records.values(), technique=name)


def test_a_technique_is_compared_seed_by_seed() -> None:
    told, _ = compared((1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 1.02, 1.5, 1.96, 2.5), Steady())
    label = "Training to accuracy 90.0 %"
    assert "; 0.50× [0.49, 0.51] of fp32's, better; 2 of at most 4 epochs" in told[label]
    # both sides' ±1 % by the meter are added whole to the interval of the ratio
    assert told["Energy of training to it"].endswith("; 0.50× [0.48, 0.52] of fp32's, better")


def test_training_on_another_device_than_the_rows_is_told() -> None:
    tables = tabulate.build([synthetic.records()])
    row = next(row for table in tables for row in table.rows if row.role == "baseline")
    known = reading.find(RUN, [played(*REACHED)], CASE)
    assert known is not None
    label = "Training to accuracy 90.0 %"
    for device, told in (
        ("cpu", ", on the processor, where models are made; 1 to 3 of"),
        ("cuda", " s; 1 to"),
    ):
        trained_on = replace(known, device=device)
        gpu = replace(row, quality_run=trained_on, case=replace(row.case, device="cuda"))
        assert told in dict(details(gpu))[label]


def test_few_seeds_give_a_ratio_without_a_verdict() -> None:
    told, _ = compared((1.0, 2.0, 3.0), (0.5, 1.0, 1.5))
    assert (
        "; 0.50×‡ of fp32's, and an interval needs 5 seeds of both; " in told["Training to accuracy 90.0 %"]
    )


def test_energy_that_is_without_a_part_says_so_and_is_compared_to_its_like() -> None:
    replies = [trained(0.95, time_s=float(seconds)) for seconds in (2, 1, 1, 2, 2, 1, 1, 2, 2, 1)]
    records, _ = play(*replies, chains=(BASELINE, "prune(ratio=0.5)"), plan=FULL, meter=Steady())
    whole, other = records.values()
    lost = Finding(code=DOMAIN_LOST, message="it is stuck", without="package-0/dram")
    part = replace(other, findings=(*other.findings, lost))
    told = {}
    for name, sides in {"one": (whole, part), "both": (replace(whole, findings=(lost,)), part)}.items():
        details_of_row, _ = lines(*sides, technique="prune(ratio=0.5)")
        told[name] = details_of_row["Energy of training to it"]
    assert told["one"].endswith(
        "that of judging included, without package-0/dram; no ratio: the energies are not of the same parts: "
        "its own is without package-0/dram"
    )
    assert ", without package-0/dram; 0.50× [" in told["both"]


def test_one_run_has_no_range() -> None:
    told, _ = lines(played(*REACHED[:1], plan=replace(QUICK, target_seeds=1)))
    assert told["Training to accuracy 90.0 %"].startswith("2.00 s, one run; 2 of at most 4 epochs")


def test_estimates_have_no_ratio() -> None:
    told, _ = compared((1.0, 2.0, 3.0, 4.0, 5.0), (0.5, 1.0, 1.5, 2.0, 2.5), Guess())
    joules = told["Energy of training to it"]
    assert joules.startswith("~150 J")
    assert joules.endswith("5 runs of 50.0 J to 250 J, that of judging included")


def test_a_share_that_is_there_is_not_told_as_nothing() -> None:
    tables = tabulate.build([synthetic.records()])
    row = next(row for table in tables for row in table.rows if row.role == "baseline")
    found = reading.find(RUN, [played(*REACHED)], CASE)
    assert found is not None
    known = replace(found, looking=0.003, earlier=0.004)
    told = dict(details(replace(row, quality_run=known)))["Training to accuracy 90.0 %"]
    assert told.endswith(
        "took under 1% of the time; under 1% went into the trained model that they began with"
    )


def lines(*made: Measurement, technique: str = BASELINE) -> tuple[dict[str, str], str]:
    """The details of a row in eager PyTorch, and the terminal's text."""
    records = synthetic.records()
    workload = records.measurements[0].case.workload
    ours = tuple(replace(one, case=replace(one.case, workload=workload)) for one in made)
    tables = tabulate.build([replace(records, measurements=(*records.measurements, *ours))])
    row = next(
        row
        for table in tables
        for row in table.rows
        if (row.case.technique, row.case.backend, row.case.sentinel) == (technique, "eager", False)
    )
    return dict(details(row)), rendered(tables, width=400, color=False)


def test_the_report_says_what_training_to_the_target_took() -> None:
    told, _ = lines(played(*REACHED, meter=Steady()))
    assert told["Training to accuracy 90.0 %"] == (
        "2.00 s, 3 runs of 1.00 s to 3.00 s; 1 to 3 of at most 4 epochs, judged at the end of each, "
        "which took 10% of the time"
    )
    assert told["Energy of training to it"] == (
        "200 J ±10.2 J by the meter, 3 runs of 100 J to 300 J, that of judging included"
    )


def test_five_runs_have_an_interval() -> None:
    five = [trained(0.5, 0.95, time_s=time_s) for time_s in (1.0, 2.0, 3.0, 4.0, 5.0)]
    told, _ = lines(played(*five, plan=FULL))
    # mean 3 and t(0.975, 4) * sqrt(2.5) / sqrt(5) = 2.776 * 0.7071
    assert told["Training to accuracy 90.0 %"].startswith(
        "3.00 s [1.04 s, 4.96 s], 5 runs of 1.00 s to 5.00 s; 2 of at most 4 epochs"
    )
    assert told["Energy of training to it"].endswith("no meter of energy is available")


def test_the_report_says_that_a_target_was_not_reached_and_states_no_number() -> None:
    told, text = lines(played(REACHED[0], trained(0.5, 0.6, 0.89, 0.88), REACHED[2], meter=Steady()))
    reason = "accuracy 90.0 % was not reached in 4 epochs by 1 of 3 runs, at best 89.0 %"
    assert told["Training to accuracy 90.0 %"] == reason
    assert "Energy of training to it" not in told
    assert reason in text


def test_the_record_is_read_from_disk_as_it_was_written(tmp_path: Path) -> None:
    one = replace(played(*REACHED, meter=Steady()), run="7f3a")
    run = synthetic.run(plan=replace(QUICK, target=0.9))
    with RunWriter.create(tmp_path, run) as writer:
        writer.append(one)
    found = store.load(writer.path)
    assert (found.run.plan.target, found.run.plan.target_seeds) == (0.9, 3)
    assert reading.find(RUN, found.measurements, CASE) == reading.find(RUN, [one], CASE)
