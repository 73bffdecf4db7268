from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from leanmark.errors import MeterError, StuckCounter
from leanmark.meters import powercap
from leanmark.meters.base import Reading
from leanmark.meters.rapl import Rapl
from leanmark.record import Provenance
from leanmark.testing.clock import VirtualClock
from leanmark.testing.power import Constant, SquareWave
from leanmark.testing.powercap import AMD_SPAN_UJ, FakePowercap, FakeZone, Fault

UPDATE_S = 1e-3
PACKAGE = FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(50.0))
DRAM = FakeZone(folder="intel-rapl:0:0", name="dram", power=Constant(7.0))
CORE = FakeZone(folder="intel-rapl:0:1", name="core", power=Constant(30.0))


class Machine:
    """A tree on disk, read at the clock's time."""

    def __init__(self, root: Path, zones: Sequence[FakeZone], start_s: float = 1000.0) -> None:
        self.clock = VirtualClock(start_s)
        self.tree = FakePowercap(root, zones, self.clock, UPDATE_S)
        self.tree.write()
        self.meter = Rapl(root, read=self.tree.read, clock=self.clock, repeat=self.clock.repeat)

    def measure(self, seconds: float) -> Reading:
        token = self.meter.start()
        self.clock.sleep(seconds)
        return self.meter.stop(token)()


def machine(root: Path, *zones: FakeZone, **options: float) -> Machine:
    return Machine(root, zones, **options)


def test_more_than_twenty_wraps_are_exact_to_one_update(tmp_path: Path) -> None:
    power = SquareWave(low_w=100.0, high_w=400.0, period_s=7.3)
    zone = FakeZone(
        folder="intel-rapl:0", name="package-0", power=power, span_uj=AMD_SPAN_UJ, offset_uj=60_000_000_000
    )
    here = machine(tmp_path, zone)
    start_s = here.clock.now_s
    reading = here.measure(6000.0)
    truth = here.tree.joules("intel-rapl:0", start_s, here.clock.now_s)
    assert truth > 20 * AMD_SPAN_UJ / 1e6
    assert reading.evidence is not None
    assert reading.evidence.wraps >= 20
    assert abs(reading.value - truth) <= 400.0 * UPDATE_S


def test_packages_and_their_memory_are_summed_and_cores_are_not(tmp_path: Path) -> None:
    second = FakeZone(folder="intel-rapl:1", name="package-1", power=Constant(40.0), offset_uj=5_000_000)
    memory = FakeZone(folder="intel-rapl:1:0", name="dram", power=Constant(3.0))
    reading = machine(tmp_path, PACKAGE, DRAM, CORE, second, memory).measure(2.0)
    assert reading.value == pytest.approx(200.0, abs=0.2)
    assert reading.duration_s == pytest.approx(2.0, abs=1e-4)
    assert reading.evidence is not None
    assert reading.evidence.parts == pytest.approx(
        {"package-0": 100.0, "package-0/dram": 14.0, "package-1": 80.0, "package-1/dram": 6.0}, abs=0.1
    )
    assert reading.findings == ()


def test_the_platform_contains_the_package_and_is_not_added(tmp_path: Path) -> None:
    psys = FakeZone(folder="intel-rapl:1", name="psys", power=Constant(80.0))
    reading = machine(tmp_path, PACKAGE, psys).measure(2.0)
    assert reading.value == pytest.approx(100.0, abs=0.1)
    assert reading.evidence is not None
    assert reading.evidence.beside == pytest.approx({"psys": 160.0}, abs=0.1)


def test_a_platform_below_its_package_is_doubted(tmp_path: Path) -> None:
    psys = FakeZone(folder="intel-rapl:1", name="psys", power=Constant(20.0))
    reading = machine(tmp_path, PACKAGE, psys).measure(2.0)
    assert [finding.code for finding in reading.findings] == ["platform-below-package"]


def test_a_platform_that_tells_nothing_is_missing_in_no_sum(tmp_path: Path) -> None:
    psys = FakeZone(folder="intel-rapl:1", name="psys", power=Constant(0.0))
    reading = machine(tmp_path, PACKAGE, psys).measure(2.0)
    assert reading.value == pytest.approx(100.0, abs=0.1)
    assert [finding.code for finding in reading.findings] == ["platform-lost"]


def test_a_platform_without_packages_is_what_there_is(tmp_path: Path) -> None:
    psys = FakeZone(folder="intel-rapl:0", name="psys", power=Constant(20.0))
    assert machine(tmp_path, psys).measure(2.0).value == pytest.approx(40.0, abs=0.1)


def test_registers_and_their_memory_map_are_one_package(tmp_path: Path) -> None:
    mapped = FakeZone(folder="intel-rapl-mmio:0", name="package-0", power=Constant(50.0), offset_uj=77)
    assert machine(tmp_path, PACKAGE, mapped).measure(2.0).value == pytest.approx(100.0, abs=0.1)


def test_the_memory_map_serves_where_the_registers_cannot_be_read(tmp_path: Path) -> None:
    shut = FakeZone(
        folder="intel-rapl:0", name="package-0", power=Constant(50.0), faults=(Fault(kind="permission"),)
    )
    mapped = FakeZone(folder="intel-rapl-mmio:0", name="package-0", power=Constant(50.0))
    assert machine(tmp_path, shut, mapped).measure(2.0).value == pytest.approx(100.0, abs=0.1)


def test_dies_that_mirror_one_counter_are_counted_once(tmp_path: Path) -> None:
    dies = [
        FakeZone(folder=f"intel-rapl:{die}", name=f"package-0-die-{die}", power=Constant(90.0))
        for die in range(4)
    ]
    reading = machine(tmp_path, *dies).measure(2.0)
    assert reading.value == pytest.approx(180.0, abs=0.2)
    assert [finding.code for finding in reading.findings] == ["mirrored-counter"] * 3


def test_dies_with_equal_loads_are_not_mirrors(tmp_path: Path) -> None:
    dies = [
        FakeZone(
            folder=f"intel-rapl:{die}",
            name=f"package-0-die-{die}",
            power=Constant(90.0),
            offset_uj=die * 3_000_000,
        )
        for die in range(2)
    ]
    reading = machine(tmp_path, *dies).measure(2.0)
    assert reading.value == pytest.approx(360.0, abs=0.2)
    assert reading.findings == ()


def test_windows_may_overlap(tmp_path: Path) -> None:
    here = machine(tmp_path, PACKAGE)
    outer = here.meter.start()
    here.clock.sleep(1.0)
    inner = here.meter.start()
    here.clock.sleep(2.0)
    assert here.meter.stop(inner)().value == pytest.approx(100.0, abs=0.1)
    assert here.meter.stop(outer)().value == pytest.approx(150.0, abs=0.1)


def test_counters_are_looked_at_well_within_a_wrap(tmp_path: Path) -> None:
    small = FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(9.0), span_uj=30_000_000_000)
    for zone, looks in ((PACKAGE, 2 + 3), (small, 2 + 9)):  # every 30 s; every third of 30 s at 1000 W
        folder = tmp_path / str(looks)
        folder.mkdir()
        here = machine(folder, zone)
        token = here.meter.start()
        here.clock.sleep(95.0)
        assert here.meter.stop(token)().evidence.distinct == looks  # type: ignore[union-attr]


def test_memory_that_stands_still_is_left_out_and_said(tmp_path: Path) -> None:
    still = FakeZone(folder="intel-rapl:0:0", name="dram", power=Constant(0.0))
    reading = machine(tmp_path, PACKAGE, still).measure(2.0)
    assert reading.evidence is not None
    assert set(reading.evidence.parts) == {"package-0"}
    assert [(one.code, one.without) for one in reading.findings] == [("domain-lost", "package-0/dram")]
    assert reading.evidence.distinct >= 2


def faulty(*faults: Fault) -> FakeZone:
    return FakeZone(folder="intel-rapl:0", name="package-0", power=Constant(50.0), faults=faults)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        (Fault(kind="permission"), "chmod a+r"),
        (Fault(kind="missing"), "No such file"),
        (Fault(kind="garbage"), "not a number"),
        (Fault(kind="empty"), "not a number"),
        (Fault(kind="missing", file="max_energy_range_uj"), "max_energy_range_uj cannot be read"),
        (Fault(kind="garbage", file="max_energy_range_uj"), "not a number"),
        (Fault(kind="zero", file="max_energy_range_uj"), "shows 0: without its span"),
        (Fault(kind="missing", file="name"), "name cannot be read"),
    ],
)
def test_a_counter_that_cannot_be_read_says_which_file_and_why(
    tmp_path: Path, fault: Fault, complaint: str
) -> None:
    here = machine(tmp_path, faulty(fault))
    reason = here.meter.unavailable()
    assert reason is not None
    assert complaint in reason
    assert str(tmp_path / "intel-rapl:0") in reason
    with pytest.raises(MeterError):
        here.measure(1.0)


def test_a_machine_without_zones_is_told_so(tmp_path: Path) -> None:
    assert "has no RAPL counter" in (Rapl(tmp_path).unavailable() or "")


@pytest.mark.parametrize("seconds", [0.5, 2.0, 100.0])
def test_a_stuck_counter_is_an_error_and_not_a_value(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(StuckCounter, match="package-0"):
        machine(tmp_path, faulty(Fault(kind="stuck"))).measure(seconds)


def test_a_counter_that_sticks_in_the_middle_of_a_long_window_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(StuckCounter):
        machine(tmp_path, faulty(Fault(kind="stuck", start_s=1035.0))).measure(100.0)


@pytest.mark.parametrize("seconds", [2.0, 100.0])
def test_a_reset_is_not_a_wrap(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(MeterError, match="reset"):
        machine(tmp_path, faulty(Fault(kind="reset", start_s=1001.0))).measure(seconds)


def test_a_counter_left_unread_over_a_wrap_is_not_believed(tmp_path: Path) -> None:
    here = machine(tmp_path, PACKAGE)
    token = here.meter.start()
    here.clock.now_s += 3600.0  # the machine slept: no poll was done
    with pytest.raises(MeterError, match="may have wrapped unseen"):
        here.meter.stop(token)()


def test_a_reading_is_of_what_was_seen_until_the_stop_whenever_it_is_asked_for(tmp_path: Path) -> None:
    here = machine(tmp_path, PACKAGE)
    token = here.meter.start()
    here.clock.sleep(2.0)
    stopped = here.meter.stop(token)
    at_once = stopped()
    here.clock.sleep(100.0)
    here.meter.close()
    assert stopped() == at_once
    assert (at_once.value, at_once.duration_s) == pytest.approx((100.0, 2.0), rel=1e-3)


def test_a_counter_that_goes_away_ends_that_window_only(tmp_path: Path) -> None:
    here = machine(tmp_path, faulty(Fault(kind="missing", start_s=1001.0, stop_s=1050.0)))
    with pytest.raises(MeterError, match="No such file"):
        here.measure(40.0)
    here.clock.sleep(20.0)
    assert here.measure(2.0).value == pytest.approx(100.0, abs=0.1)


def test_the_tree_on_disk_is_read_like_the_real_one(tmp_path: Path) -> None:
    here = machine(tmp_path, PACKAGE, DRAM)
    meter = Rapl(tmp_path, clock=here.clock, repeat=here.clock.repeat)
    assert meter.unavailable() is None
    token = meter.start()
    here.clock.sleep(2.0)
    here.tree.write()
    assert meter.stop(token)().value == pytest.approx(114.0, abs=0.2)
    assert meter.provenance is Provenance.MEASURED_COUNTER


def test_files_stay_open_between_windows_until_the_meter_is_closed(tmp_path: Path) -> None:
    here = machine(tmp_path, PACKAGE)
    meter = Rapl(tmp_path, clock=here.clock, repeat=here.clock.repeat)

    def measured() -> float:
        token = meter.start()
        here.clock.sleep(2.0)
        here.tree.write()
        return meter.stop(token)().value

    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    assert measured() == pytest.approx(100.0, abs=0.2)
    kept = {one.readlink() for one in Path("/proc/self/fd").iterdir() if one.exists()}
    assert counter.resolve() in kept
    counter.write_text("0x?!\n")
    with pytest.raises(MeterError, match=r"shows '0x\?!', which is not a number"):
        meter.stop(meter.start())()
    outside = PACKAGE.span_uj + 1
    counter.write_text(f"{outside}\n")
    other = Rapl(tmp_path, clock=here.clock)
    assert "not within its span" in (other.unavailable() or "")
    other.close()
    token = meter.start()  # and back in its span before the window ends
    here.clock.sleep(2.0)
    here.tree.write()
    with pytest.raises(MeterError, match=f"package-0 showed {outside}, which is not within its span"):
        meter.stop(token)()
    assert measured() == pytest.approx(100.0, abs=0.2)
    meter.close()
    assert counter.resolve() not in {
        one.readlink() for one in Path("/proc/self/fd").iterdir() if one.exists()
    }
    assert measured() == pytest.approx(100.0, abs=0.2)
    meter.close()


def test_a_file_that_failed_is_opened_anew(tmp_path: Path) -> None:
    here = machine(tmp_path, PACKAGE)
    (zone,) = powercap.zones(tmp_path, powercap.read_text)
    counter = powercap.KeptCounter(zone)
    first = int(counter.read())
    folder = os.open(tmp_path, os.O_RDONLY)
    assert counter._file is not None
    os.dup2(folder, counter._file)  # as a driver that went away would: what is open cannot be read
    with pytest.raises(IsADirectoryError):
        counter.read()
    here.clock.sleep(1.0)
    here.tree.write()
    assert int(counter.read()) - first == pytest.approx(50e6, rel=1e-3)
    counter.close()
    os.close(folder)
