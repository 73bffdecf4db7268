from __future__ import annotations

import pytest

from leanmark.reading.energetics import Energetics, energetics
from leanmark.record import Block, Finding, Measurement, Provenance, Series
from leanmark.statistics import stats

from . import synthetic
from .energy_stage import CASES, gpu, there


def of(one: Measurement) -> Energetics:
    found = energetics(one, stats.summarize(there(one, "energy_j")))
    assert found is not None
    return found


def series(metric: str, *values: float, doubt: float | None = None, gain: float | None = None) -> Series:
    blocks = (
        Block(process=0, round=index, order=0, value=value, loops=1, start_s=0.0, uncertainty=doubt)
        for index, value in enumerate(values)
    )
    return Series(metric=metric, meter="nvmlenergy", gain=gain, blocks=tuple(blocks))


def metered(context: tuple[float, ...] = (60.0, 60.0), *findings: str, step_s: float = 1e-3) -> Measurement:
    """300 mJ a step of 1 ms, over an idle power of ``context``."""
    found = [
        series("energy_j", *[0.3] * 6, doubt=0.003, gain=0.1),
        series("window_step_s", *[step_s] * 6),
        *([series("idle_context_w", *context, doubt=0.5)] if context else []),
    ]
    return Measurement(
        run="r",
        case=CASES[0],
        pass_name="energy",
        status="ok",
        work="w",
        series=tuple(found),
        findings=tuple(Finding(code=code, message=f"because {code}") for code in findings),
        executed={"evidence": {"source": "nvml.total_energy"}},
    )


def test_net_is_gross_less_the_idle_power_of_its_time() -> None:
    found = of(metered())
    assert found.net is not None
    assert found.net.value_j == pytest.approx(0.3 - 60.0 * 1e-3)
    assert found.net.doubt_j == pytest.approx((0.003**2 + (0.5e-3) ** 2 + 0.024**2) ** 0.5)
    assert found.power_w == pytest.approx(300.0)
    assert found.source == "nvml.total_energy"


def test_the_uncertainty_of_gross_holds_the_gain() -> None:
    found = of(metered())
    assert found.gain == 0.1
    assert found.doubt_j == pytest.approx((0.03**2 + 0.003**2) ** 0.5)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (metered(()), "idle power with the model loaded is not known"),
        (metered((60.0,)), "is not known before and after"),
        (metered((60.0, 70.0)), "drifted from 60 W to 70 W"),
        (metered((60.0, 60.0), "shared-gpu"), "because shared-gpu"),
        (metered((280.0, 281.0)), "6% of the gross"),
        (metered((320.0, 321.0)), "-7% of the gross"),
        (metered((300.5, 300.5)), "is 0% of the gross"),
    ],
)
def test_net_that_means_nothing_is_refused_and_never_clamped(one: Measurement, reason: str) -> None:
    found = of(one)
    assert found.net is None
    assert found.net_refusal is not None
    assert reason in found.net_refusal


def test_two_watts_are_no_drift_however_small_the_idle_power() -> None:
    assert of(metered((5.0, 6.9))).net is not None
    assert of(metered((5.0, 7.1))).net is None


def test_net_on_a_fake_board_comes_to_the_truth() -> None:
    with gpu() as stage:
        one, _ = stage.play(stage.entrants((1e-3, 300.0), (5e-4, 300.0)))
    found = of(one)
    assert found.net is not None
    assert found.net.value_j == pytest.approx(0.24, rel=0.02)
    assert abs(found.net.value_j - 0.24) <= found.net.doubt_j
    assert set(found.idle) == {"bare", "context"}
    assert found.idle["bare"].mean_w == pytest.approx(60.0, rel=0.02)


def test_of_an_estimate_only_the_source_is_known() -> None:
    estimated = synthetic.passes(CASES[0], 1e-3)[2]
    assert there(estimated, "energy_j").provenance is Provenance.ESTIMATED_MODEL
    assert of(estimated) == Energetics()
