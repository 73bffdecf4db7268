"""Reads what ``disturbance`` judges, from Linux's ``/proc`` and ``/sys``; what is absent is ``None``.

The files stay open: reading one again costs 1 to 3 µs (``/proc/stat`` 10, ``/proc/vmstat`` 30), opening it
costs 15 more.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from leanmark.machine.disturbance import BlockSample, RoundSample

_ROOT = Path("/")

_THREAD = getattr(resource, "RUSAGE_THREAD", None)
"""Who to ask about one thread; only Linux knows."""


class _File:
    """A small kernel file, opened once; ``None`` is read from what is absent or refuses."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor: int | None = os.open(path, os.O_RDONLY)
        except OSError:
            self._descriptor = None

    def text(self) -> str | None:
        if self._descriptor is None:
            return None
        try:
            return os.pread(self._descriptor, 65536, 0).decode()
        except OSError:  # pressure that is compiled in but off, a thread that has ended
            return None

    def number(self) -> int | None:
        text = (self.text() or "").strip()
        return int(text) if text.lstrip("-").isdigit() else None

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class _Probe:
    """Owns open files; closing it closes them."""

    def __init__(self) -> None:
        self._files: list[_File] = []

    def _open(self, path: Path) -> _File:
        file = _File(path)
        self._files.append(file)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class BlockProbe(_Probe):
    """Made in the process that steps, by the thread that steps, once its helper threads have started."""

    def __init__(self, core: int, root: Path = _ROOT) -> None:
        super().__init__()
        tasks = sorted((root / "proc/self/task").glob("*/schedstat"))
        self._queues = [self._open(path) for path in tasks]
        self._clock = self._open(_cpufreq(root, core) / "scaling_cur_freq")

    def read(self) -> BlockSample:
        process = resource.getrusage(resource.RUSAGE_SELF)
        thread = resource.getrusage(_THREAD) if _THREAD is not None else None
        khz = self._clock.number()
        return BlockSample(
            wall_s=time.perf_counter(),
            cpu_s=time.thread_time(),
            slept=thread.ru_nvcsw if thread else None,
            switched=process.ru_nivcsw,
            major_faults=process.ru_majflt,
            waited_s=self._waited(),
            clock_hz=None if khz is None else khz * 1e3,
        )

    def _waited(self) -> tuple[float, ...] | None:
        """The second field of each thread's ``schedstat``: nanoseconds in the queue of a core."""
        texts = [queue.text() for queue in self._queues]
        fields = [text.split() for text in texts if text]
        return tuple(int(field[1]) * 1e-9 for field in fields) if fields and all(texts) else None


class RoundProbe(_Probe):
    """Made in the parent, for the cores that the variants of a contest are pinned to."""

    def __init__(self, cores: Sequence[int], root: Path = _ROOT) -> None:
        super().__init__()
        self._cores = tuple(cores)
        self._pressure = self._open(root / "proc/pressure/cpu")
        self._stat = self._open(root / "proc/stat")
        self._swap = self._open(root / "proc/vmstat")
        self._load = self._open(root / "proc/loadavg")
        self._quota = self._open(_quota_file(root))
        self._governor = self._open(_cpufreq(root, self._cores[0]) / "scaling_governor")
        cpu = root / "sys/devices/system/cpu"
        self._throttle = [
            self._open(cpu / f"cpu{core}/thermal_throttle/core_throttle_count") for core in self._cores
        ]
        zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
        self._zones = [(self._open(zone / "temp"), _slowing_point(zone)) for zone in zones]

    def read(self) -> RoundSample:
        governor, load = self._governor.text(), self._load.text()
        counts = [file.number() for file in self._throttle]
        known = [count for count in counts if count is not None]
        readings = [(file.number(), limit) for file, limit in self._zones]
        degrees = [(number, limit) for number, limit in readings if number is not None]
        return RoundSample(
            wall_s=time.perf_counter(),
            cores=len(self._cores),
            pressure_s=_pressure_s(self._pressure.text()),
            steal_s=_steal_s(self._stat.text(), self._cores),
            throttled_s=_throttled_s(self._quota.text()),
            swapped_pages=_swapped(self._swap.text()),
            throttle_events=sum(known) if known else None,
            governor=governor.strip() if governor else None,
            hot=_hot(degrees),
            temperature_c=max(number for number, _ in degrees) / 1e3 if degrees else None,
            load_1min=float(load.split()[0]) if load else None,
        )


def _cpufreq(root: Path, core: int) -> Path:
    return root / f"sys/devices/system/cpu/cpu{core}/cpufreq"


def _pressure_s(text: str | None) -> float | None:
    """``some avg10=0.00 avg60=0.00 avg300=0.00 total=123`` in microseconds."""
    line = (text or "").partition("\n")[0]
    return int(line.rpartition("total=")[2]) * 1e-6 if "total=" in line else None


def _steal_s(text: str | None, cores: Sequence[int]) -> float | None:
    """Of the lines ``cpu0 user nice system idle iowait irq softirq steal``, in ticks."""
    lines = [line.split() for line in (text or "").splitlines()]
    wanted = {f"cpu{core}" for core in cores}
    ticks = [int(line[8]) for line in lines if len(line) > 8 and line[0] in wanted]
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if len(ticks) == len(wanted) else None


def _throttled_s(text: str | None) -> float | None:
    """``throttled_usec`` of version 2 of control groups, ``throttled_time`` (ns) of version 1."""
    pairs = dict(line.split()[:2] for line in (text or "").splitlines() if len(line.split()) > 1)
    for name, unit in (("throttled_usec", 1e-6), ("throttled_time", 1e-9)):
        if name in pairs:
            return int(pairs[name]) * unit
    return None  # the root group of version 2 has no quota and says nothing


def _swapped(text: str | None) -> int | None:
    pairs = dict(line.split()[:2] for line in (text or "").splitlines())
    return int(pairs["pswpin"]) + int(pairs["pswpout"]) if {"pswpin", "pswpout"} <= pairs.keys() else None


def _hot(degrees: Sequence[tuple[int, int | None]]) -> bool | None:
    limited = [number >= limit for number, limit in degrees if limit is not None]
    return any(limited) if limited else None


def _slowing_point(zone: Path) -> int | None:
    """Where the kernel begins to slow things down: the lowest passive trip point, in 1/1000 degree."""
    points = []
    for kind in zone.glob("trip_point_*_type"):
        at = _once(kind.with_name(kind.name.replace("_type", "_temp")))
        if _once(kind) == "passive" and at and at.isdigit() and int(at) > 0:
            points.append(int(at))
    return min(points, default=None)


def _quota_file(root: Path) -> Path:
    """``cpu.stat`` of our control group; in a container its path may be the host's, so the root is next."""
    groups = root / "sys/fs/cgroup"
    candidates = [path for path in _quota_candidates(root, groups) if "throttled" in (_once(path) or "")]
    return candidates[0] if candidates else groups / "cpu.stat"


def _quota_candidates(root: Path, groups: Path) -> Iterator[Path]:
    for line in (_once(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            for folder in (groups, groups / "unified") if controllers == "" else (groups / controllers,):
                yield folder / path.lstrip("/") / "cpu.stat"
                yield folder / "cpu.stat"


def _once(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
