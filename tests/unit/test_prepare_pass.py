from __future__ import annotations

from leanmark.errors import StuckCounter
from leanmark.measuring import prepare_pass
from leanmark.meters.base import Meter, Reading
from leanmark.meters.codecarbon import CodeCarbon
from leanmark.meters.wall import Wall
from leanmark.protocol.messages import Ready
from leanmark.record import Case, Provenance

READY = Ready(work="w", time_s=2.0, model={}, refusals={}, verified={}, doubts=())
READING = Reading(value=100.0, duration_s=8.0)


class Stuck(Wall):
    def stop(self, token: float) -> Reading:
        raise StuckCounter("it showed 7 for 2 s")


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


def test_an_estimate_is_divided_by_time_and_a_counter_is_not() -> None:
    estimate = prepare_pass._cost(READY, CodeCarbon(), READING)
    assert (estimate.energy_j, estimate.energy_provenance) == (25.0, Provenance.ESTIMATED_MODEL)
    counted = prepare_pass._cost(READY, Wall(), READING)
    assert (counted.energy_j, counted.energy_provenance) == (100.0, Provenance.MEASURED_COUNTER)


def test_a_meter_that_fails_costs_its_number_and_nothing_else() -> None:
    meter: Meter[float] = Stuck()
    cost = prepare_pass._cost(READY, meter, prepare_pass._stop(meter, 0.0))
    assert (cost.time_s, cost.energy_j, cost.energy_reason) == (2.0, None, "it showed 7 for 2 s")
    assert prepare_pass._cost(READY, None, "no meter of energy is available").energy_j is None
