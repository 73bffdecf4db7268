from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from leanmark.errors import MeterError
from leanmark.measuring.energy_pass import EnergyPass, Entrant
from leanmark.meters.base import Meter, Reading, Stopped
from leanmark.plan import FULL, QUICK
from leanmark.protocol import messages
from leanmark.reading.compare import ESTIMATED, Side, compare_series
from leanmark.record import DOMAIN_LOST, Comparison, Finding, Measurement, Provenance
from leanmark.statistics.merge import merged
from leanmark.testing.nvml import LOST, GpuFault
from leanmark.testing.power import Constant

from . import synthetic
from .energy_stage import CASES, FIRST, IDLE_W, Worker, gpu, latency, processor, there

HALF = ((1e-3, 300.0), (5e-4, 300.0))
"""Steps of 1 ms and of half that, both at 300 W: 300 mJ and 150 mJ."""


def compared(below: Measurement, above: Measurement, metric: str = "energy_j") -> Comparison:
    run = synthetic.run()
    return compare_series(Side(run=run, measurement=below), Side(run=run, measurement=above), metric)


def test_measured_energy_is_a_contest_with_rounds_and_a_verdict(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    below, above = stage.play(stage.entrants(*HALF))
    series = there(above, "energy_j")
    assert [block.round for block in series.blocks] == [0, 1, 2, 3, 4, 5]
    found = compared(below, above)
    assert found.ratio is not None
    assert found.ratio.low < 0.5 < found.ratio.high
    assert (found.verdict, found.pairs, found.ratio.scope) == ("better", 6, "within-process")


def test_turns_are_in_random_order_that_the_seed_repeats(tmp_path: Path) -> None:
    orders: list[list[int]] = []
    for seed in (1, 1, 2):
        stage = processor(tmp_path / str(len(orders)))
        found = stage.play(stage.entrants(*HALF), replace(QUICK, seed=seed, energy_rounds=12))
        orders.append([block.order for block in there(found[0], "energy_j").blocks])
    assert orders[0] == orders[1] != orders[2]
    assert set(orders[0]) == {0, 1}


def test_a_part_that_told_nothing_on_one_side_leaves_no_ratio(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    below, above = stage.play(stage.entrants(*HALF))
    lost = (Finding(code=DOMAIN_LOST, message="it is stuck", without="package-0/dram"),)
    one_sided = compared(replace(below, findings=lost), above)
    assert (one_sided.ratio, one_sided.verdict) == (None, "inconclusive")
    assert one_sided.reason == (
        "the energies are not of the same parts: the reference's is without package-0/dram"
    )
    assert compared(replace(below, findings=lost), replace(above, findings=lost)).verdict == "better"
    assert compared(replace(below, findings=lost), above, "window_step_s").ratio is not None


def test_every_window_states_an_uncertainty_that_holds_the_truth(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    for one, truth in zip(stage.play(stage.entrants(*HALF)), (0.3, 0.15), strict=True):
        series = there(one, "energy_j")
        assert series.gain == 0.05
        for block in series.blocks:
            assert block.uncertainty is not None
            assert abs(block.value - truth) <= block.uncertainty < 0.02 * truth


def test_a_gpu_window_is_as_long_as_its_counter_needs() -> None:
    with gpu(update_s=0.1) as stage:
        entrants = stage.entrants(*HALF)
        below, above = stage.play(entrants)
        assert entrants[0].worker.asked[0].seconds == pytest.approx(1.0, rel=1e-3)  # type: ignore[attr-defined]
        for one, truth in ((below, 0.3), (above, 0.15)):
            block = there(one, "energy_j").blocks[0]
            assert block.value == pytest.approx(truth, rel=0.01)
            assert block.temperature_c == 60.0
        ratio = compared(below, above).ratio
        assert ratio is not None and ratio.value == pytest.approx(0.5, rel=0.01)


def test_idle_power_is_known_bare_and_with_the_models_loaded_before_and_after() -> None:
    with gpu() as stage:
        one = stage.play(stage.entrants(*HALF), between=lambda: stage.load.switch(stage.clock(), 90.0))[0]
    bare, context = there(one, "idle_bare_w"), there(one, "idle_context_w")
    assert bare.values == pytest.approx((IDLE_W, 90.0), rel=0.02)
    assert context.values == pytest.approx((IDLE_W, IDLE_W), rel=0.02)


def test_later_processes_meter_the_steps_and_not_the_idle_power_again(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    second = replace(FIRST, index=1)
    assert stage.play(stage.entrants(*HALF), QUICK, second) == []
    one, _ = stage.play(stage.entrants(*HALF), FULL, second)
    assert {block.process for block in there(one, "energy_j").blocks} == {1}
    assert one.find("idle_context_w") is None


def test_processes_are_joined_into_one_measurement(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    found = []
    for index in range(FULL.energy_processes):
        found += stage.play(stage.entrants(*HALF), FULL, replace(FIRST, index=index))
    below, above = merged(found)
    ratio = compared(below, above).ratio
    assert ratio is not None
    assert (ratio.scope, there(below, "idle_bare_w").processes) == ("across-processes", 1)
    assert ratio.value == pytest.approx(0.5, rel=0.01)


def test_counter_and_power_are_checked_against_each_other() -> None:
    with gpu() as stage:
        agreed = stage.play(stage.entrants(*HALF))[0]
    assert [one.code for one in agreed.findings] == []
    with gpu(power=Constant(300.0), module_power=Constant(450.0)) as stage:
        doubted = stage.play(stage.entrants(*HALF))[0]
    messages_ = [one.message for one in doubted.findings if one.code == "counter-against-power"]
    assert len(messages_) == 1
    assert "+50%" in messages_[0]


def test_a_board_without_power_sensors_says_that_nothing_was_checked() -> None:
    fault = GpuFault(kind="error", code=3, calls=("nvmlDeviceGetFieldValues",))
    with gpu(faults=(fault,)) as stage:
        one = stage.play(stage.entrants(*HALF))[0]
    assert one.status == "ok"
    assert [finding.code for finding in one.findings] == ["no-cross-check"]


class Stuck(Meter[None]):
    """Starts and never stops well; ``stopped`` counts the tries."""

    unit, scope, covers = "j", "device", "gpu"
    provenance = Provenance.MEASURED_COUNTER
    resolution = min_window_s = 0.0

    def __init__(self, second: Meter[None] | None = None) -> None:
        self.second, self.stopped = second, 0

    def unavailable(self) -> str | None:
        return None

    def second_opinion(self) -> Meter[None] | None:
        return self.second

    def start(self) -> None:
        return None

    def stop(self, token: None) -> Stopped:
        self.stopped += 1
        return self._reading

    def _reading(self) -> Reading:
        raise MeterError("the counter is stuck")


def test_a_counter_that_fails_leaves_no_sensor_sampling() -> None:
    sensor = Stuck()
    counter = Stuck(second=sensor)
    energy = EnergyPass(QUICK, FIRST, counter)
    with pytest.raises(KeyError), energy._cross_checked(counter):
        raise KeyError
    assert (counter.stopped, sensor.stopped) == (1, 1)
    assert [one.code for one in energy._findings] == ["no-cross-check"] * 2


def test_a_gpu_that_disappears_costs_the_measurement_it_was_needed_for() -> None:
    with gpu() as stage:
        entrants = stage.entrants(*HALF)
        second = entrants[1].worker
        start_s: list[float] = []

        def lost(request: messages.RunWindow, timeout_s: float) -> messages.Window:
            """The driver loses the board in the second window of this variant, and finds it again."""
            start_s.append(stage.clock())
            if len(start_s) == 2:
                fault = GpuFault(kind="error", code=LOST, start_s=start_s[1] + 0.3, stop_s=start_s[1] + 0.9)
                assert stage.library is not None
                stage.library.gpus[0] = replace(stage.library.gpus[0], faults=(fault,))
            return Worker.ask(second, request, timeout_s)  # type: ignore[arg-type]

        entrants[1].worker = type("Lossy", (), {"ask": staticmethod(lost)})()
        kept, failed = stage.play(entrants)
    assert (failed.status, failed.series) == ("failed", ())
    assert failed.reason is not None
    assert "GPU is lost" in failed.reason
    assert "NVIDIA H100" in failed.reason
    assert (kept.status, len(there(kept, "energy_j").blocks)) == ("ok", QUICK.energy_rounds)


def test_a_worker_that_dies_ends_its_case_and_no_other(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    entrants = stage.entrants(*HALF)
    entrants[1].worker.dies = True  # type: ignore[attr-defined]
    found = stage.play(entrants)
    assert "SIGKILL" in str(entrants[1].error)
    assert [one.case for one in found] == [CASES[0]]


def test_at_a_fixed_rate_the_idle_time_is_billed_too() -> None:
    with gpu() as stage:
        below, above = stage.play(stage.entrants(*HALF), replace(QUICK, request_rate=100.0))
    # 1 ms at 300 W and 9 ms at 60 W; half the work saves 0.12 J of 0.84 J, not half of it
    assert there(below, "energy_at_rate_j").values[0] == pytest.approx(0.84, rel=0.02)
    assert there(above, "energy_at_rate_j").values[0] == pytest.approx(0.72, rel=0.02)
    ratio = compared(below, above, "energy_at_rate_j").ratio
    assert ratio is not None and ratio.value == pytest.approx(0.72 / 0.84, rel=0.02)
    assert below.executed["request_rate_hz"] == 100.0
    assert there(above, "energy_j").values[0] == pytest.approx(0.15, rel=0.02)


def test_a_rate_that_cannot_be_held_has_no_energy_and_says_why() -> None:
    with gpu() as stage:
        slow, fast = stage.play(
            stage.entrants((0.02, 300.0), (1e-3, 300.0)), replace(QUICK, request_rate=100.0)
        )
    assert slow.find("energy_at_rate_j") is None
    assert [one.message for one in slow.findings] == [
        "no energy at the request rate: it served 50 of 100 requests per second"
    ]
    assert fast.find("energy_at_rate_j") is not None


class Model(Meter[None]):
    """Always 25 W."""

    unit = "j"
    scope = "machine"
    provenance = Provenance.ESTIMATED_MODEL
    covers = "processor"
    resolution = 0.0
    min_window_s = 0.1

    def unavailable(self) -> str | None:
        return None

    def start(self) -> None:
        return None

    def stop(self, token: None) -> Stopped:
        return partial(Reading, value=50.0, duration_s=2.0)


@pytest.mark.parametrize("index", [0, 7])
def test_an_estimate_is_its_power_times_the_latency_of_the_rounds(tmp_path: Path, index: int) -> None:
    stage = replace(processor(tmp_path), meter=Model())
    entrants = stage.entrants(*HALF)
    below, above = stage.play(entrants, QUICK, replace(FIRST, index=index))
    assert there(above, "energy_j").values == pytest.approx([25.0 * 5e-4] * 3)
    assert [len(one.worker.asked) for one in entrants] == [1, 0]  # type: ignore[attr-defined]
    assert "25 W" in above.executed["evidence"]["source"]
    assert above.find("idle_bare_w") is None
    found = compared(below, above)
    assert (found.ratio, found.reason) == (None, ESTIMATED)


def test_an_estimate_is_made_under_the_first_variant_that_lives(tmp_path: Path) -> None:
    stage = replace(processor(tmp_path), meter=Model())
    entrants = stage.entrants(*HALF)
    entrants[0].worker.dies = True  # type: ignore[attr-defined]
    [one] = stage.play(entrants)
    assert one.case == CASES[1]
    assert there(one, "energy_j").values[0] == pytest.approx(25.0 * 5e-4)
    entrants = stage.entrants(*HALF)
    for each in entrants:
        each.worker.dies = True  # type: ignore[attr-defined]
    assert stage.play(entrants) == []


def test_an_estimate_says_nothing_of_a_request_rate(tmp_path: Path) -> None:
    stage = replace(processor(tmp_path), meter=Model())
    one, _ = stage.play(stage.entrants(*HALF), replace(QUICK, request_rate=10.0))
    assert [finding.code for finding in one.findings] == ["no-energy-at-rate"]
    assert one.find("energy_at_rate_j") is None


def test_a_model_that_has_no_answer_leaves_every_variant_without_energy(tmp_path: Path) -> None:
    class Silent(Model):
        def start(self) -> None:
            raise MeterError("codecarbon gave no result")

    stage = replace(processor(tmp_path), meter=Silent())
    found = stage.play(stage.entrants(*HALF))
    assert {(one.status, one.reason) for one in found} == {("failed", "codecarbon gave no result")}


def test_without_a_meter_nothing_is_asked_and_nothing_written(tmp_path: Path) -> None:
    stage = processor(tmp_path)
    worker = Worker(stage.load, stage.clock, 1e-3, 300.0)
    energy = EnergyPass(QUICK, FIRST, None)
    energy.idle("bare")
    energy.play([Entrant(CASES[0], worker, latency(1e-3))])  # type: ignore[arg-type]
    assert (worker.asked, energy.records("r", "c", {CASES[0]: "w"})) == ([], [])
