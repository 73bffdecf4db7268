"""A whole run whose energy is measured: real processes, and a counter of known power."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from leanmark import plan, store
from leanmark.machine.probes import RoundProbe
from leanmark.measuring import campaign, energy_pass
from leanmark.measuring.campaign import Campaign
from leanmark.meters.base import Evidence, Meter, Reading, Stopped
from leanmark.plan import QUICK, Selection
from leanmark.protocol.messages import WorkloadSpec
from leanmark.reading import carbon, tabulate
from leanmark.reading.table import Row
from leanmark.record import Measurement, Provenance
from leanmark.report.details import details

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TINY = WorkloadSpec(name="tiny:model", data="tiny:loaders")
WATTS = 100.0
ROUNDS = 6


class Steady(Meter[float]):
    """A counter of ``WATTS``, whatever runs."""

    unit = "j"
    scope = "machine"
    provenance = Provenance.MEASURED_COUNTER
    covers = "processor"
    resolution = 0.0
    min_window_s = 0.01

    def unavailable(self) -> str | None:
        return None

    def start(self) -> float:
        return time.perf_counter()

    def stop(self, token: float) -> Stopped:
        seconds = time.perf_counter() - token
        joules = WATTS * seconds
        return partial(
            Reading,
            value=joules,
            duration_s=seconds,
            uncertainty=0.001 * joules,
            evidence=Evidence(source="steady", distinct=2, gain=0.05),
        )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sampling = replace(
        QUICK,
        processes=2,
        rounds=8,
        block_s=0.002,
        warmup_s=0.02,
        energy_window_s=0.01,
        energy_rounds=ROUNDS,
        request_rate=20.0,
    )
    selection = Selection(
        workloads=(TINY,),
        techniques=("fp32", "prune"),
        backends=("eager",),
        phases=("inference",),
        batches=(4,),
    )
    made = replace(plan.make(selection, sampling), intensity=carbon.explicit(100.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HERE)
        patch.syspath_prepend(HERE)
        patch.setattr(campaign, "energy_meter", lambda gpu: Steady())
        # a thermometer that jumps would set rounds aside
        patch.setattr(energy_pass, "RoundProbe", lambda cores, root: RoundProbe(cores, HERE))
        with Campaign(made, tmp_path_factory.mktemp("results")) as running:
            running.run_all()
    return running.path


@pytest.fixture(scope="module")
def measurements(path: Path) -> tuple[Measurement, ...]:
    return store.load(path).measurements


@pytest.fixture(scope="module")
def pruned(path: Path) -> Row:
    records = store.load(path)
    # whether a few milliseconds get steady is up to whoever else uses the machine
    settled = tuple(replace(one, findings=()) for one in records.measurements)
    records = replace(records, measurements=settled)
    (table,) = tabulate.build([records], carbon.of(records.run, None))
    return next(row for row in table.rows if row.case.technique == "prune")


def test_every_variant_has_a_window_in_every_round(measurements: tuple[Measurement, ...]) -> None:
    found = [one for one in measurements if one.pass_name == "energy"]
    assert {one.status for one in found} == {"ok"}
    assert {one.case.label for one in found} == {"fp32", "fp32-again", "prune"}
    turns = {}
    for one in found:
        series = one.find("energy_j")
        assert series is not None
        assert (series.gain, series.meter) == (0.05, "steady")
        turns[one.case.label] = [block.order for block in series.blocks]
        assert all(block.uncertainty is not None for block in series.blocks)
    assert [sorted(orders) for orders in zip(*turns.values(), strict=True)] == [[0, 1, 2]] * ROUNDS


def test_the_power_of_the_windows_and_of_idling_is_the_meters(
    measurements: tuple[Measurement, ...],
) -> None:
    one = next(one for one in measurements if one.pass_name == "energy")
    joules, took = one.find("energy_j"), one.find("window_step_s")
    assert joules is not None
    assert took is not None
    ratios = [each / step_s for each, step_s in zip(joules.values, took.values, strict=True)]
    assert ratios == pytest.approx([WATTS] * ROUNDS)
    for name in ("idle_bare_w", "idle_context_w"):
        idle = one.find(name)
        assert idle is not None
        assert idle.values == pytest.approx((WATTS, WATTS))


def test_making_a_model_is_metered_between_the_workers_notices(
    measurements: tuple[Measurement, ...],
) -> None:
    costs = [one.cost for one in measurements if one.pass_name == "prepare"]
    assert costs
    for cost in costs:
        assert cost is not None
        assert cost.energy_j == pytest.approx(WATTS * cost.time_s)
        assert cost.energy_provenance is Provenance.MEASURED_COUNTER


def test_the_first_calls_of_all_processes_are_metered(measurements: tuple[Measurement, ...]) -> None:
    timed = [one for one in measurements if one.pass_name == "latency"]
    assert len(timed) == 2 * 3  # though only the first process has windows of energy
    for one in timed:
        took, joules = one.find("cold_start_s"), one.find("cold_start_j")
        assert took is not None
        assert joules is not None
        assert joules.values == pytest.approx([WATTS * each for each in took.values])
        assert (joules.provenance, joules.gain) == (Provenance.MEASURED_COUNTER, 0.05)


def test_a_row_tells_of_measured_energy_and_of_its_pay_back(pruned: Row) -> None:
    assert pruned.energy is not None
    assert pruned.energy.comparison is not None
    assert pruned.energy.comparison.ratio is not None
    assert pruned.co2_g == pytest.approx(pruned.energy.summary.value / 3.6e6 * 100.0)
    lines = dict(details(pruned))
    assert lines["Energy per step"].endswith("(measured counter, steady)")
    assert lines["No net energy"].startswith("it is ")  # idle draws as much as work
    assert {"Break-even in time", "Break-even in energy"} <= lines.keys()
    assert "not measured" not in lines["Break-even in energy"]


@pytest.mark.slow
def test_training_runs_to_a_target_are_metered_and_a_trained_model_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = replace(
        QUICK, processes=1, rounds=6, block_s=0.002, warmup_s=0.02, energy_window_s=0.01, energy_rounds=1
    )
    sampling = replace(plan.with_target(sampling, "80%"), target_seeds=2)
    selection = Selection(
        workloads=(WorkloadSpec(name="mlp"), TINY),
        techniques=("fp32", "prune"),
        backends=("eager",),
        phases=("training",),
        batches=(4,),
    )
    monkeypatch.chdir(HERE)
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(campaign, "energy_meter", lambda gpu: Steady())
    with Campaign(plan.make(selection, sampling), tmp_path) as running:
        running.run_all()
    mlp, pruned, own = (
        one for one in store.load(running.path).measurements if one.pass_name == "quality_run"
    )
    took, joules = mlp.find("run_to_quality_s"), mlp.find("run_to_quality_j")
    assert took is not None
    assert joules is not None
    assert joules.values == pytest.approx([WATTS * each for each in took.values])
    for one in mlp.executed["runs"]:
        *before, last = one["qualities"]
        assert last >= 0.8 > max(before, default=0.0)
    assert (pruned.case.technique, pruned.status, pruned.contest) == ("prune", "ok", mlp.contest)
    both = [[one["earlier_s"] > 0 for one in side.executed["runs"]] for side in (mlp, pruned)]
    assert both == [[False] * 2, [True] * 2]
    assert (own.status, own.series) == ("skipped", ())
    assert "it comes trained: there is no recipe" in str(own.reason)
