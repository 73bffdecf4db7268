"""Training runs to a quality target: when they end, what is kept of them, what is said."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import nn

from leanmark import store
from leanmark.errors import Implausible, Unsupported, UsageError, WorkerDied
from leanmark.measuring import quality_run as measuring
from leanmark.measuring import schedule
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.prepare_pass import Prepared
from leanmark.meters.base import Evidence, Meter, Reading
from leanmark.plan import FULL, QUICK, with_target
from leanmark.protocol import messages
from leanmark.protocol.messages import Notice, Ready, Trained, WorkloadSpec
from leanmark.reading import quality_run as reading
from leanmark.reading import tabulate
from leanmark.record import BASELINE, Case, Measurement, Provenance
from leanmark.report.console import rendered
from leanmark.report.details import details
from leanmark.store import RunWriter
from leanmark.worker import quality_run
from leanmark.workloads.base import Dataset, Recipe, Split, Workload
from leanmark.workloads.training import outputs, seeded, train

from . import synthetic

CASE = Case(workload="tiny", phase="training")
STEPS = 19
"""Batches of 16 in 300 samples."""


class Tiny(Workload):
    recipe: ClassVar[Recipe | None] = Recipe(epochs=20, batch=16, learning_rate=3e-2)

    def model(self) -> nn.Module:
        with seeded(0):
            return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 2))

    def dataset(self) -> Dataset:
        inputs = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
        return _split(inputs, (inputs.sum(1) > 2).long())


class Line(Tiny):
    """A regression."""

    target: ClassVar[float | None] = 0.8

    def model(self) -> nn.Module:
        with seeded(0):
            return nn.Linear(4, 1)

    def dataset(self) -> Dataset:
        inputs = torch.rand(400, 4, generator=torch.Generator().manual_seed(0))
        return _split(inputs, inputs.sum(1, keepdim=True))


class Exact(Line):
    def dataset(self) -> Dataset:
        made = super().dataset()
        return replace(made, test=replace(made.test, targets=made.test.targets.double()))


class Diverging(Line):
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).mean() * torch.inf


class Made(Tiny):
    recipe = None


def _split(inputs: torch.Tensor, targets: torch.Tensor) -> Dataset:
    return Dataset(
        train=Split(inputs=inputs[:300], targets=targets[:300]),
        test=Split(inputs=inputs[300:], targets=targets[300:]),
    )


def run(workload: Workload, target: float | None, seed: int = 0) -> Trained:
    return quality_run.run(workload, target, seed, lambda notice: None)


def test_a_run_ends_with_the_first_epoch_that_is_good_enough() -> None:
    told: list[Notice] = []
    found = quality_run.run(Tiny(), 0.9, 0, told.append)
    *before, last = found.qualities
    assert (found.metric, found.target, found.reached) == ("accuracy", 0.9, True)
    assert before
    assert max(before) < 0.9 <= last
    assert (found.epochs, found.longest) == (len(found.qualities), 20)
    assert found.steps == STEPS * found.epochs
    assert 0 < found.looking_s < found.time_s
    assert [notice.what for notice in told] == ["begins", "ended"]


def test_looking_changes_nothing_about_the_training() -> None:
    workload = Tiny()
    assert workload.recipe is not None
    found = run(workload, 2.0)
    assert (found.reached, found.epochs, found.steps) == (False, 20, 20 * STEPS)
    module, data = workload.model(), workload.dataset()
    train(module, data.train, workload.recipe, workload.loss)
    right = outputs(module, data.test.inputs).argmax(1) == data.test.targets
    assert found.qualities[-1] == pytest.approx(right.float().mean().item(), abs=1e-7)


def test_seeds_shuffle() -> None:
    first, again, other = (run(Tiny(), 2.0, seed).qualities for seed in (0, 0, 1))
    assert first == again != other


def test_a_regression_has_a_target_of_its_own_and_in_r2() -> None:
    found = run(Line(), None)
    assert (found.metric, found.target, found.reached) == ("r2", 0.8, True)
    assert found.qualities[-1] >= 0.8


def test_training_that_diverges_ends_and_says_so() -> None:
    with pytest.raises(Implausible, match="r2 was nan after epoch 1: training diverged"):
        run(Diverging(), 0.5)


@pytest.mark.parametrize(
    ("workload", "target", "reason"),
    [
        (Made(), 0.9, "comes trained: there is no recipe"),
        (Tiny(), None, "Tiny states no target of its own"),
        (Exact(), 0.9, "no targets that a training run could be judged by"),
    ],
)
def test_what_cannot_be_trained_to_a_target_says_why(
    workload: Workload, target: float | None, reason: str
) -> None:
    with pytest.raises(Unsupported, match=reason):
        run(workload, target)


class Steady(Meter[None]):
    """100 W, known to 1 %, by a sensor that is 5 % off."""

    unit, scope = "j", "machine"
    provenance = Provenance.MEASURED_COUNTER
    resolution = min_window_s = 0.0

    def unavailable(self) -> str | None:
        return None

    def start(self) -> None:
        return None

    def stop(self, token: None) -> Reading:
        return Reading(value=100.0, duration_s=1.0, uncertainty=1.0, evidence=Evidence(source="s", gain=0.05))


class Script:
    """A launcher whose workers answer with ``replies``, one each."""

    def __init__(self, replies: Sequence[Trained | Exception]) -> None:
        self.replies = list(replies)
        self.seeds: list[int] = []

    def server(self, layout: object, source: object) -> Script:
        return self

    def fork(self) -> Script:
        return self

    def ask(self, request: messages.TrainToQuality, timeout_s: float, notice: Callable[..., None]) -> Trained:
        self.seeds.append(request.seed)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
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


def played(
    *replies: Trained | Exception,
    meter: Meter[Any] | None = None,
    has_time_for: Callable[[float], bool] = lambda seconds: True,
) -> Measurement:
    ready = Ready(work="w", work_parts={}, time_s=1.0, model={}, refusals={}, verified={}, doubts=())
    prepared = Prepared(folder=Path(), spec=WorkloadSpec(name="tiny"), ready={BASELINE: ready})
    replicas = [schedule.replica(QUICK, 1, (0,), seed) for seed in range(3)]
    trials = measuring.Trials(prepared=prepared, replicas=replicas, target=0.9)
    script = Script(replies)
    made = trials.play(cast(Launcher, script), meter, has_time_for)
    found = measuring.record("run", CASE, trials, made)
    assert script.seeds == list(range(len(script.seeds)))
    return found


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
    assert "time was left for 2 of 3 training runs to the target" in [each.message for each in one.findings]


def test_without_a_meter_there_is_the_time_alone() -> None:
    one = played(*REACHED)
    assert one.find("run_to_quality_j") is None
    assert one.find("run_to_quality_s") is not None
    found = reading.find([one], CASE)
    assert found is not None
    assert found.refusal == "no energy of the training run: no meter of energy is available"


def test_a_worker_that_dies_is_a_failure_with_its_reason() -> None:
    one = played(REACHED[0], WorkerDied("the process was killed"))
    assert (one.status, one.series) == ("failed", ())
    assert "the process was killed" in str(one.reason)


def test_reading_finds_the_run_of_a_baseline_and_sums_it_up() -> None:
    one = played(*REACHED, meter=Steady())
    found = reading.find([one], replace(CASE, phase="inference", batch=32, backend="onnxruntime"))
    assert found is not None
    assert found.time is not None
    assert found.energy is not None
    assert (found.metric, found.target, found.epochs, found.longest) == ("accuracy", 0.9, (2, 3, 1), 4)
    assert (found.time.summary.value, found.time.least, found.time.most) == (2.0, 1.0, 3.0)
    assert found.time.summary.interval is None  # three runs are too few for one
    assert found.energy.summary.value == pytest.approx(200.0)
    assert found.energy.doubt == pytest.approx(200.0 * math.hypot(0.01, 0.05))
    assert found.looking == pytest.approx(0.1)
    assert reading.find([one], replace(CASE, technique="prune")) is None
    assert reading.find([one], replace(CASE, workload="other")) is None
    assert reading.find([one], replace(CASE, commit="abc1234")) is None


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


def lines(one: Measurement) -> tuple[dict[str, str], str]:
    """The details of the baseline's row, and the terminal's text."""
    records = synthetic.records()
    workload = records.measurements[0].case.workload
    ours = replace(one, case=replace(one.case, workload=workload))
    tables = tabulate.build([replace(records, measurements=(*records.measurements, ours))])
    (row, *_) = [row for table in tables for row in table.rows if row.role == "baseline"]
    return dict(details(row)), rendered(tables, width=400, color=False)


def test_the_report_says_what_training_to_the_target_took() -> None:
    told, text = lines(played(*REACHED, meter=Steady()))
    assert told["Training to accuracy 90.0 %"] == (
        "2.00 s, 3 runs of 1.00 s to 3.00 s; 1 to 3 of at most 4 epochs, judged at the end of each, "
        "which took 10% of the time"
    )
    assert told["Energy of training to it"] == (
        "200 J ±10.2 J by the meter, 3 runs of 100 J to 300 J, that of judging included"
    )
    workload = synthetic.records().measurements[0].case.workload
    assert text.count(f"{workload}: Training to accuracy 90.0 %: 2.00 s, 3 runs of 1.00 s to 3.00 s") == 1


def test_five_runs_have_an_interval() -> None:
    five = [trained(0.5, 0.95, time_s=time_s) for time_s in (1.0, 2.0, 3.0, 4.0, 5.0)]
    ready = Ready(work="w", work_parts={}, time_s=1.0, model={}, refusals={}, verified={}, doubts=())
    prepared = Prepared(folder=Path(), spec=WorkloadSpec(name="tiny"), ready={BASELINE: ready})
    replicas = [schedule.replica(FULL, 1, (0,), seed) for seed in range(FULL.target_seeds)]
    trials = measuring.Trials(prepared=prepared, replicas=replicas, target=0.9)
    made = trials.play(cast(Launcher, Script(five)), None, lambda seconds: True)
    told, _ = lines(measuring.record("run", CASE, trials, made))
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
    assert reading.find(found.measurements, CASE) == reading.find([one], CASE)
