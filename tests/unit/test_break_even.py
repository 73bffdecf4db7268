from __future__ import annotations

import math
from dataclasses import replace

import pytest

from leanmark.reading.break_even import BreakEven, Quantity, Spent, spent
from leanmark.reading.break_even import break_even as _break_even
from leanmark.reading.cost import total
from leanmark.reading.first_call import Extra, FirstCall, first_call
from leanmark.record import (
    DOMAIN_LOST,
    Block,
    Case,
    Comparison,
    Cost,
    Finding,
    Interval,
    Measurement,
    Provenance,
    Series,
)

CASE = Case(workload="cnn", technique="distill")
COST = Cost(time_s=10.0, energy_j=500.0, energy_provenance=Provenance.MEASURED_COUNTER)


def break_even(
    quantity: Quantity,
    cost: Cost | None,
    comparison: Comparison | None,
    reference: float,
    batch: int,
    first: FirstCall | None = None,
) -> BreakEven:
    return _break_even(quantity, spent(quantity, cost, first), comparison, reference, batch)


def compared(low: float, value: float, high: float, **changes: object) -> Comparison:
    fields: dict[str, object] = {
        "metric": "latency_s",
        "baseline": CASE.baseline(),
        "candidate": CASE,
        "ratio": Interval(
            value=value, low=low, high=high, confidence=0.95, method="t", scope="across-processes"
        ),
        "verdict": "better",
        "margin": 0.02,
        "allowance": 0.0,
    }
    return Comparison(**{**fields, **changes})  # type: ignore[arg-type]


def counts(found: BreakEven) -> tuple[float, float, float]:
    assert found.low is not None
    assert found.count is not None
    assert found.high is not None
    return found.low, found.count, found.high


def test_the_count_is_the_cost_over_the_saving_per_sample_with_its_interval() -> None:
    found = break_even("time", COST, compared(0.4, 0.5, 0.6), 2e-3, 1)
    assert counts(found) == pytest.approx((10.0 / 1.2e-3, 10.0 / 1e-3, 10.0 / 0.8e-3))


def test_processes_that_nobody_saw_may_have_saved_nothing() -> None:
    found = break_even("time", COST, compared(0.96, 0.97, 0.98, allowance=0.05), 2e-3, 1)
    assert counts(found)[2] == math.inf
    assert counts(found)[0] == pytest.approx(10.0 / (2e-3 * (1 - 0.96 / 1.05)))


def test_a_batch_is_as_many_inferences() -> None:
    found = break_even("time", COST, compared(0.4, 0.5, 0.6), 2e-3, 32)
    assert found.count == pytest.approx(32 * 10.0 / 1e-3)


def test_energy_pays_back_energy() -> None:
    found = break_even("energy", COST, compared(0.7, 0.75, 0.8), 0.02, 1)
    assert found.spent is not None
    assert found.spent.value == 500.0
    assert found.count == pytest.approx(500.0 / 0.005)


@pytest.mark.parametrize(
    ("ratio", "endless"),
    [
        ((0.9, 0.95, 1.02), (False, False, True)),
        ((0.9, 1.01, 1.1), (False, True, True)),
        ((1.0, 1.2, 1.4), (True, True, True)),
    ],
)
def test_what_may_save_nothing_may_never_pay_back(
    ratio: tuple[float, float, float], endless: tuple[bool, ...]
) -> None:
    found = break_even("time", COST, compared(*ratio), 2e-3, 1)
    assert tuple(math.isinf(count) for count in counts(found)) == endless


def test_what_costs_nothing_has_paid_at_once() -> None:
    found = break_even("time", Cost(time_s=0.0), compared(0.4, 0.5, 0.6), 2e-3, 1)
    assert counts(found) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("cost", "comparison", "reason"),
    [
        (None, compared(0.4, 0.5, 0.6), "what applying it cost is not known"),
        (
            Cost(time_s=1.0, energy_reason="it showed 7 for 2 s"),
            compared(0.4, 0.5, 0.6),
            "it showed 7 for 2 s",
        ),
        (
            Cost(time_s=1.0, energy_j=25.0, energy_provenance=Provenance.ESTIMATED_MODEL),
            compared(0.4, 0.5, 0.6),
            "not measured: there are only estimates of energy",
        ),
        (COST, compared(0.4, 0.5, 0.6, ratio=None, reason="one process"), "one process"),
        (
            COST,
            compared(0.4, 0.5, 0.6, demoted=True, reason="the A/A sentinel failed"),
            "the A/A sentinel failed",
        ),
        (COST, None, "nothing was compared"),
    ],
)
def test_what_cannot_be_said_has_a_reason(
    cost: Cost | None, comparison: Comparison | None, reason: str
) -> None:
    found = break_even("energy", cost, comparison, 0.02, 1)
    assert found.count is None
    assert found.refusal is not None
    assert reason in found.refusal


EXPORTED = replace(COST, energy_uncertainty_j=25.0, build_s=3.0, build_j=60.0, build_uncertainty_j=3.0)
COMPILED = FirstCall(
    time=Extra(value=20.0, low=18.0, high=22.0), energy=Extra(value=400.0, low=380.0, high=420.0)
)


def test_writing_and_compiling_are_part_of_the_cost_and_their_range_of_the_interval() -> None:
    time = break_even("time", EXPORTED, compared(0.4, 0.5, 0.6), 2e-3, 1, COMPILED)
    assert time.spent == Spent(
        value=33.0, low=31.0, high=35.0, parts={"applied": 10.0, "built": 3.0, "first call": 20.0}
    )
    assert counts(time) == pytest.approx((31.0 / 1.2e-3, 33.0 / 1e-3, 35.0 / 0.8e-3))
    energy = break_even("energy", EXPORTED, compared(0.7, 0.75, 0.8), 0.02, 1, COMPILED)
    assert energy.spent is not None
    assert (energy.spent.low, energy.spent.value, energy.spent.high) == (912.0, 960.0, 1008.0)
    assert counts(energy) == pytest.approx((912.0 / 0.006, 960.0 / 0.005, 1008.0 / 0.004))
    assert energy.spent.unknown == ()


def test_parts_whose_energy_no_counter_told_are_named() -> None:
    without = replace(EXPORTED, build_j=None, build_uncertainty_j=None)
    found = break_even("energy", without, compared(0.7, 0.75, 0.8), 0.02, 1, replace(COMPILED, energy=None))
    assert found.spent is not None
    assert found.spent.unknown == ("built", "first call")
    assert (found.spent.value, found.spent.parts) == (500.0, {"applied": 500.0})


def test_a_model_that_starts_faster_costs_less_and_perhaps_nothing() -> None:
    faster = FirstCall(time=Extra(value=-12.0, low=-13.0, high=-9.0), energy=None)
    found = break_even("time", COST, compared(0.4, 0.5, 0.6), 2e-3, 1, faster)
    assert counts(found) == pytest.approx((0.0, 0.0, 1.0 / 0.8e-3))


def test_of_a_chain_only_the_last_form_that_is_written_counts() -> None:
    links = [
        Cost(
            time_s=5.0, energy_j=50.0, energy_provenance=Provenance.MEASURED_COUNTER, build_s=2.0, build_j=8.0
        ),
        Cost(
            time_s=4.0, energy_j=40.0, energy_provenance=Provenance.MEASURED_COUNTER, build_s=1.0, build_j=7.0
        ),
        Cost(time_s=3.0, energy_j=30.0, energy_provenance=Provenance.MEASURED_COUNTER),  # of the graph itself
    ]
    found = total(links)
    assert (found.time_s, found.energy_j, found.build_s, found.build_j) == (12.0, 120.0, 1.0, 7.0)
    assert total(links[2:]).build_s is None


def latency(*cold_s: float, joules: tuple[float, ...] = (), estimated: bool = False) -> Measurement:
    def series(metric: str, values: tuple[float, ...], provenance: Provenance) -> Series:
        blocks = tuple(
            Block(process=index, round=0, order=0, value=value, loops=1, start_s=0.0)
            for index, value in enumerate(values)
        )
        return Series(metric=metric, meter="m", provenance=provenance, blocks=blocks)

    kind = Provenance.ESTIMATED_MODEL if estimated else Provenance.MEASURED_COUNTER
    found = [series("cold_start_s", cold_s, Provenance.MEASURED_COUNTER)]
    if joules:
        found.append(series("cold_start_j", joules, kind))
    return Measurement(run="r", case=CASE, pass_name="latency", status="ok", work="w", series=tuple(found))


def test_the_first_call_is_compared_process_by_process() -> None:
    found = first_call(latency(5.0, 7.0, joules=(50.0, 70.0)), latency(1.0, 4.0, joules=(10.0, 40.0)))
    assert found == FirstCall(
        time=Extra(value=3.5, low=3.0, high=4.0), energy=Extra(value=35.0, low=30.0, high=40.0)
    )


def test_five_processes_give_the_first_call_an_interval() -> None:
    found = first_call(latency(2.0, 3.0, 4.0, 5.0, 6.0), latency(1.0, 1.0, 1.0, 1.0, 1.0))
    assert found is not None
    half = 2.7764 * math.sqrt(2.5 / 5)  # t(0.975, 4)
    assert (found.time.value, found.time.low, found.time.high) == pytest.approx(
        (3.0, 3.0 - half, 3.0 + half), rel=1e-4
    )
    assert found.energy is None


def test_an_estimate_of_a_first_call_is_no_energy() -> None:
    sides = [latency(2.0, joules=(9.0,), estimated=True), latency(1.0, joules=(5.0,), estimated=True)]
    found = first_call(*sides)
    assert found is not None
    assert found.energy is None
    assert first_call(sides[0], None) is None


def test_first_calls_without_the_same_part_of_the_machine_are_not_compared() -> None:
    part = Finding(code=DOMAIN_LOST, message="of a first call", without="package-0/dram")
    changed, reference = latency(2.0, joules=(9.0,)), latency(1.0, joules=(5.0,))
    one_sided = first_call(replace(changed, findings=(part,)), reference)
    both = first_call(replace(changed, findings=(part,)), replace(reference, findings=(part,)))
    assert one_sided is not None
    assert both is not None
    assert one_sided.energy is None
    assert both.energy == Extra(value=4.0, low=4.0, high=4.0)
