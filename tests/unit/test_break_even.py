from __future__ import annotations

import math

import pytest

from leanmark.reading.break_even import BreakEven, break_even
from leanmark.record import Case, Comparison, Cost, Interval, Provenance

CASE = Case(workload="cnn", technique="distill")
COST = Cost(time_s=10.0, energy_j=500.0, energy_provenance=Provenance.MEASURED_COUNTER)


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
    assert (found.cost, found.count) == (500.0, pytest.approx(500.0 / 0.005))


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
