"""Flags from readings, and readings from a fake kernel; every number is exact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leanmark.machine import disturbance
from leanmark.machine.disturbance import BlockSample, RoundSample, block_flags, lost_s, round_flags
from leanmark.machine.probes import BlockProbe, RoundProbe

BLOCK = BlockSample(
    wall_s=10.0,
    cpu_s=3.0,
    slept=5,
    switched=2,
    major_faults=1,
    waited_s=(0.5, 0.25),
    clock_hz=3e9,
)
RAN = replace(BLOCK, wall_s=10.010, cpu_s=3.010)
"""10 ms later, all of them spent running."""

ROUND = RoundSample(
    wall_s=10.0,
    cores=1,
    pressure_s=7.0,
    steal_s=1.0,
    throttled_s=0.0,
    swapped_pages=4,
    throttle_events=0,
    governor="performance",
    hot=False,
    temperature_c=50.0,
    load_1min=0.5,
)
LATER = replace(ROUND, wall_s=10.040)


def test_a_block_that_ran_throughout_has_no_flags() -> None:
    assert block_flags(BLOCK, RAN) == ()
    assert lost_s(BLOCK, RAN) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"cpu_s": 3.00991}, ()),
        ({"cpu_s": 3.00989}, ("preempted",)),
        ({"waited_s": (0.50009, 0.25)}, ()),
        ({"waited_s": (0.5, 0.25011)}, ("preempted",)),
        ({"switched": 9}, ()),  # the time is known, so the number of switches does not matter
        ({"major_faults": 2}, ("major_faults",)),
        ({"clock_hz": 2.3e9}, ()),
        ({"clock_hz": 2.2e9}, ("clock",)),
        ({"clock_hz": 4.1e9}, ("clock",)),
        ({"clock_hz": None}, ()),
        ({"cpu_s": 3.0, "major_faults": 2}, ("preempted", "major_faults")),
    ],
)
def test_what_disturbs_a_block(changes: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert block_flags(BLOCK, replace(RAN, **changes)) == flags


def test_a_thread_that_sleeps_is_judged_by_its_time_in_the_queue() -> None:
    """It waits for its helpers half the time: that is how it works, not a disturbance."""
    asleep = replace(RAN, cpu_s=3.005, slept=9)
    assert block_flags(BLOCK, asleep) == ()
    queued = replace(asleep, waited_s=(0.5, 0.251))
    assert lost_s(BLOCK, queued) == pytest.approx(0.001)
    assert block_flags(BLOCK, queued) == ("preempted",)


@pytest.mark.parametrize(
    ("wall_s", "switched", "flags"),
    [(10.010, 3, ()), (10.010, 4, ("preempted",)), (10.100, 11, ()), (10.100, 13, ("preempted",))],
)
def test_without_times_forced_switches_are_counted(
    wall_s: float, switched: int, flags: tuple[str, ...]
) -> None:
    before = replace(BLOCK, slept=None, waited_s=None)
    after = replace(before, wall_s=wall_s, switched=switched)
    assert lost_s(before, after) is None
    assert block_flags(before, after) == flags


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ()),
        ({"pressure_s": 7.0079}, ()),
        ({"pressure_s": 7.0081}, ("pressure",)),
        ({"steal_s": 1.01}, ("steal",)),
        ({"throttled_s": 0.001}, ("throttled",)),
        ({"swapped_pages": 5}, ("swap",)),
        ({"throttle_events": 1}, ("slowed",)),
        ({"hot": True}, ("hot",)),
        ({"governor": "powersave"}, ("governor",)),
        ({"temperature_c": 80.0, "load_1min": 9.0}, ()),
        ({"steal_s": None, "pressure_s": 8.0}, ("pressure",)),
    ],
)
def test_what_disturbs_a_round(changes: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert round_flags(ROUND, replace(LATER, **changes)) == flags


def test_steal_is_a_share_of_all_our_cores() -> None:
    before = replace(ROUND, cores=4)
    assert round_flags(before, replace(before, wall_s=11.0, steal_s=1.03)) == ()
    assert round_flags(before, replace(before, wall_s=11.0, steal_s=1.05)) == ("steal",)


def test_what_cannot_be_read_is_said_and_is_not_fine() -> None:
    blind = replace(BLOCK, clock_hz=None, slept=None, switched=None)
    missing = disturbance.unobserved(blind, replace(ROUND, hot=None))
    assert missing == ("slept", "switched", "clock_hz", "hot")
    (finding,) = disturbance.findings(missing)
    assert finding.code == disturbance.UNOBSERVED
    assert finding.message == (
        "cannot be observed here, so nothing is known about: clock frequency, context switches, "
        "distance to the thermal limit"
    )
    assert disturbance.findings(disturbance.unobserved(BLOCK, ROUND)) == ()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    cpu, zone = "sys/devices/system/cpu/cpu1", "sys/class/thermal/thermal_zone0"
    write(
        tmp_path,
        {
            "proc/self/task/7/schedstat": "100 2000000 3\n",
            "proc/self/task/8/schedstat": "100 500000000 3\n",
            "proc/self/cgroup": "1:name=systemd:/\n0::/job\n",
            "proc/pressure/cpu": "some avg10=1.00 avg60=0 avg300=0 total=2500000\nfull avg10=0 total=9\n",
            "proc/stat": "cpu  1 1 1 1 1 1 1 99 0 0\ncpu0 1 1 1 1 1 1 1 59 0 0\ncpu1 1 1 1 1 1 1 1 40 0 0\n",
            "proc/vmstat": "nr_free_pages 1\npswpin 3\npswpout 4\n",
            "proc/loadavg": "0.75 0.50 0.25 1/99 1234\n",
            "sys/fs/cgroup/job/cpu.stat": "usage_usec 5\nthrottled_usec 1500\n",
            f"{cpu}/cpufreq/scaling_cur_freq": "3200000\n",
            f"{cpu}/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/thermal_throttle/core_throttle_count": "2\n",
            f"{zone}/temp": "71500\n",
            f"{zone}/trip_point_0_type": "critical\n",
            f"{zone}/trip_point_0_temp": "105000\n",
            f"{zone}/trip_point_1_type": "passive\n",
            f"{zone}/trip_point_1_temp": "90000\n",
        },
    )
    return tmp_path


def test_a_round_is_read_from_the_kernel(root: Path) -> None:
    with RoundProbe((1,), root) as probe:
        found = probe.read()
    assert found == RoundSample(
        wall_s=found.wall_s,
        cores=1,
        pressure_s=2.5,
        steal_s=0.4,
        throttled_s=0.0015,
        swapped_pages=7,
        throttle_events=2,
        governor="powersave",
        hot=False,
        temperature_c=71.5,
        load_1min=0.75,
    )


def test_open_files_are_read_anew_each_time(root: Path) -> None:
    with RoundProbe((0, 1), root) as probe:
        before = probe.read()
        write(
            root,
            {
                "proc/vmstat": "pswpin 3\npswpout 5\n",
                "sys/class/thermal/thermal_zone0/temp": "90000\n",
                "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "3\n",
            },
        )
        after = probe.read()
    assert before.steal_s == pytest.approx(0.99)
    assert round_flags(before, after) == ("swap", "slowed", "hot")


def test_a_block_is_read_from_the_kernel_and_the_process(root: Path) -> None:
    with BlockProbe(1, root) as probe:
        found = probe.read()
    assert found.waited_s == pytest.approx((0.002, 0.5))
    assert found.clock_hz == 3.2e9
    assert found.switched is not None and found.major_faults is not None


def test_on_a_bare_system_nothing_is_known(tmp_path: Path) -> None:
    with BlockProbe(0, tmp_path) as blocks, RoundProbe((0,), tmp_path) as probe:
        block, round_ = blocks.read(), probe.read()
    assert set(disturbance.unobserved(block)) >= {"waited_s", "clock_hz"}
    assert disturbance.unobserved(round_) == (
        "pressure_s",
        "steal_s",
        "throttled_s",
        "swapped_pages",
        "throttle_events",
        "governor",
        "hot",
        "temperature_c",
        "load_1min",
    )
    assert round_flags(round_, round_) == ()


@pytest.mark.parametrize(
    ("group", "file", "text", "seconds"),
    [
        (
            "4:cpu,cpuacct:/job\n",
            "cpu,cpuacct/job/cpu.stat",
            "nr_throttled 1\nthrottled_time 2000000\n",
            0.002,
        ),
        ("0::/host/path\n", "cpu.stat", "throttled_usec 10\n", 1e-5),
        ("1:cpu:/\n0::/\n", "unified/cpu.stat", "throttled_usec 10\n", 1e-5),
        ("0::/\n", "cpu.stat", "usage_usec 10\n", None),
        ("4:memory:/job\n", "memory/job/cpu.stat", "throttled_usec 10\n", None),
    ],
)
def test_the_quota_is_found_in_both_versions_of_control_groups(
    tmp_path: Path, group: str, file: str, text: str, seconds: float | None
) -> None:
    write(tmp_path, {"proc/self/cgroup": group, f"sys/fs/cgroup/{file}": text})
    with RoundProbe((0,), tmp_path) as probe:
        assert probe.read().throttled_s == (None if seconds is None else pytest.approx(seconds))


def test_a_thread_that_ends_leaves_its_waiting_unknown(root: Path) -> None:
    with BlockProbe(1, root) as probe:
        write(root, {"proc/self/task/8/schedstat": ""})
        assert probe.read().waited_s is None
