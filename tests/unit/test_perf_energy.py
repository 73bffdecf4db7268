from __future__ import annotations

from pathlib import Path

import pytest

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters.perf_energy import PerfEnergy
from leanmark.testing.clock import VirtualClock
from leanmark.testing.perf import FakePerf
from leanmark.testing.power import Constant


def machine(folder: Path, **powers: list[float]) -> tuple[VirtualClock, FakePerf, PerfEnergy]:
    clock = VirtualClock()
    named = {name.replace("_", "-"): [Constant(watts) for watts in each] for name, each in powers.items()}
    fake = FakePerf(folder / "power", named, clock)
    meter = PerfEnergy(fake.folder, open_event=fake.open, clock=clock, repeat=clock.repeat)
    return clock, fake, meter


def test_packages_and_memory_are_summed_for_hours(tmp_path: Path) -> None:
    clock, _, meter = machine(tmp_path, energy_pkg=[200.0, 150.0], energy_ram=[20.0, 10.0])
    token = meter.start()
    clock.sleep(4 * 3600.0)
    reading = meter.stop(token)()
    assert reading.value == pytest.approx(380.0 * 4 * 3600.0, abs=0.5)
    assert reading.evidence is not None
    assert reading.evidence.source == "perf"
    assert reading.evidence.wraps == 0


def test_the_platform_is_beside_the_sum(tmp_path: Path) -> None:
    clock, _, meter = machine(tmp_path, energy_pkg=[50.0], energy_psys=[80.0])
    token = meter.start()
    clock.sleep(2.0)
    reading = meter.stop(token)()
    assert reading.value == pytest.approx(100.0, abs=0.1)
    assert reading.evidence is not None
    assert reading.evidence.beside == pytest.approx({"psys": 160.0}, abs=0.1)


def test_packages_that_agree_to_a_joule_are_summed_and_doubted(tmp_path: Path) -> None:
    clock, _, meter = machine(tmp_path, energy_pkg=[50.0, 50.0])
    token = meter.start()
    clock.sleep(10.0)
    reading = meter.stop(token)()
    assert reading.value == pytest.approx(1000.0, abs=0.2)
    assert [finding.code for finding in reading.findings] == ["mirrored-counter"]


def test_a_kernel_that_refuses_says_how_to_ask(tmp_path: Path) -> None:
    _, fake, meter = machine(tmp_path, energy_pkg=[50.0])
    fake.allowed = False
    assert "sysctl kernel.perf_event_paranoid=0" in (meter.unavailable() or "")


def test_a_machine_without_the_events_is_told_so(tmp_path: Path) -> None:
    assert "has no event energy-pkg" in (PerfEnergy(tmp_path).unavailable() or "")


def test_an_unreadable_description_is_an_error(tmp_path: Path) -> None:
    _, fake, meter = machine(tmp_path, energy_pkg=[50.0])
    (fake.folder / "cpumask").write_text("none\n")
    assert "cannot be opened" in (meter.unavailable() or "")


def test_neighbouring_cpus_are_two_packages(tmp_path: Path) -> None:
    _, fake, meter = machine(tmp_path, energy_pkg=[50.0, 60.0])
    (fake.folder / "cpumask").write_text("0-1\n")
    assert meter.unavailable() is None
    assert len(fake.events) == 2


def test_a_lost_event_is_an_error(tmp_path: Path) -> None:
    clock, fake, meter = machine(tmp_path, energy_pkg=[50.0])
    token = meter.start()
    clock.sleep(1.0)
    fake.events[0].lost = True
    with pytest.raises(MeterError, match="energy-pkg"):
        meter.stop(token)()


def test_a_window_shorter_than_an_update_is_no_measurement(tmp_path: Path) -> None:
    clock, _, meter = machine(tmp_path, energy_pkg=[50.0])
    token = meter.start()
    clock.sleep(1e-5)
    with pytest.raises(StuckCounter):
        meter.stop(token)()


def test_closing_closes_every_event(tmp_path: Path) -> None:
    _, fake, meter = machine(tmp_path, energy_pkg=[50.0, 60.0], energy_ram=[5.0, 6.0])
    meter.start()
    meter.close()
    assert [event.closed for event in fake.events] == [True] * 4
