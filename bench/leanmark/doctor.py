"""What on this machine disturbs measuring, and what is missing for energy. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from leanmark.machine import core_speed
from leanmark.record import Environment

Level = Literal["ok", "warn", "unknown"]
Conditions = Mapping[str, str | int | float | bool | None]

LOOK_S = 1.0
"""For which the speed of the cores is looked at."""

BUSY_PRESSURE = 5.0
"""Percent of the last 10 s in which some task waited for a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """``advice`` says what to do about it; empty where there is nothing to do."""

    level: Level
    subject: str
    message: str
    advice: str = ""


def examine(environment: Environment, root: Path = Path("/")) -> Iterator[Diagnosis]:
    """Everything that is known to disturb or to be missing; unknown is not ok."""
    conditions = environment.conditions
    yield _governor(conditions)
    yield _boost(conditions)
    yield _pressure(conditions)
    yield _load(conditions, int(environment.machine.get("cores_allowed") or 1))
    yield _virtual(conditions)
    yield _speeds(core_speed.of_each_core(LOOK_S))
    yield _processor_energy(root)
    yield _gpu_energy()
    yield _estimate()


def _governor(conditions: Conditions) -> Diagnosis:
    governor = conditions["governor"]
    if governor is None:
        return Diagnosis(
            level="unknown",
            subject="frequency governor",
            message="cannot be read here, so frequency changes go unseen",
            advice="interleaved rounds keep ratios honest; do not compare absolute times between days",
        )
    if governor == "performance":
        return Diagnosis(level="ok", subject="frequency governor", message="performance")
    return Diagnosis(
        level="warn",
        subject="frequency governor",
        message=f"{governor}: the clock follows the load",
        advice="sudo cpupower frequency-set -g performance",
    )


def _boost(conditions: Conditions) -> Diagnosis:
    boost = conditions["boost"]
    if boost is None:
        return Diagnosis(level="unknown", subject="boost", message="cannot be read here")
    if boost == "0":
        return Diagnosis(level="ok", subject="boost", message="off")
    return Diagnosis(
        level="warn",
        subject="boost",
        message="on: speed depends on temperature and on the other cores",
        advice="echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
    )


def _pressure(conditions: Conditions) -> Diagnosis:
    pressure = conditions["cpu_pressure_avg10"]
    if pressure is None:
        return Diagnosis(
            level="unknown", subject="waiting for cores", message="/proc/pressure/cpu cannot be read"
        )
    text = f"some task waited for a core in {pressure:.0f} % of the last 10 s"
    if float(pressure) < BUSY_PRESSURE:
        return Diagnosis(level="ok", subject="waiting for cores", message=text)
    return Diagnosis(
        level="warn", subject="waiting for cores", message=text, advice="stop what else is running"
    )


def _load(conditions: Conditions, cores: int) -> Diagnosis:
    load = conditions["load_1min"]
    if load is None:
        return Diagnosis(level="unknown", subject="load", message="cannot be read here")
    text = f"{load:.1f} over the last minute on {cores} cores"
    if float(load) < cores / 2:
        return Diagnosis(level="ok", subject="load", message=text)
    return Diagnosis(level="warn", subject="load", message=text, advice="wait until the machine is idle")


def _virtual(conditions: Conditions) -> Diagnosis:
    if conditions["virtual_machine"] is None:
        return Diagnosis(level="unknown", subject="virtual machine", message="cannot be told here")
    if not conditions["virtual_machine"]:
        return Diagnosis(level="ok", subject="virtual machine", message="no: the hardware is ours")
    return Diagnosis(
        level="warn",
        subject="virtual machine",
        message="yes: neighbours share the hardware, and only how fast our cores are tells of them",
        advice="trust ratios within one run; repeat on another day before believing small ones",
    )


def _speeds(speeds: Mapping[int, float]) -> Diagnosis:
    subject = "speed of the cores"
    if not speeds:
        return Diagnosis(level="unknown", subject=subject, message="a thread cannot choose its core here")
    best = max(speeds.values())
    slow = {core: speed / best for core, speed in speeds.items() if speed < core_speed.WHOLE * best}
    if not slow:
        message = f"{len(speeds)} looked at for {LOOK_S:g} s: all alike"
        return Diagnosis(level="ok", subject=subject, message=message)
    listed = ", ".join(f"core {core} has {share:.0%}" for core, share in slow.items())
    return Diagnosis(
        level="warn",
        subject=subject,
        message=f"of the fastest one's, at hashing for {LOOK_S:g} s, {listed}",
        advice="another kind of core, a lower clock or a neighbour on it: taskset -c chooses the others",
    )


def _processor_energy(root: Path) -> Diagnosis:
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    if not zones:
        return Diagnosis(
            level="warn",
            subject="energy of the processor",
            message="no counter: /sys/class/powercap has no intel-rapl zone (usual in virtual machines)",
            advice="measure energy on bare metal; here it stays an estimate, marked ~",
        )
    counter = zones[0] / "energy_uj"
    try:
        counter.read_text()
    except PermissionError:
        return Diagnosis(
            level="warn",
            subject="energy of the processor",
            message=f"{counter} may not be read",
            advice=f"until the next boot: sudo chmod a+r {counter.parent.parent}/intel-rapl*/energy_uj",
        )
    except OSError as error:
        return Diagnosis(
            level="warn", subject="energy of the processor", message=f"{counter}: {error.strerror}"
        )
    return Diagnosis(
        level="ok", subject="energy of the processor", message=f"its counter is readable: {zones[0].name}"
    )


def _gpu_energy() -> Diagnosis:
    if find_spec("pynvml") is None:
        return Diagnosis(
            level="unknown",
            subject="energy of the GPU",
            message="pynvml is not installed",
            advice="pip install nvidia-ml-py",
        )
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Diagnosis(
            level="warn", subject="energy of the GPU", message=f"no NVIDIA driver answers: {error}"
        )
    count = pynvml.nvmlDeviceGetCount()
    pynvml.nvmlShutdown()
    return Diagnosis(
        level="ok" if count else "warn",
        subject="energy of the GPU",
        message=f"{count} GPU found; leanmark list devices says whether PyTorch can use it",
    )


def _estimate() -> Diagnosis:
    if find_spec("codecarbon") is None:
        return Diagnosis(
            level="warn",
            subject="estimate of energy",
            message="codecarbon is not installed",
            advice="pip install codecarbon",
        )
    return Diagnosis(
        level="ok",
        subject="estimate of energy",
        message="codecarbon's load model: it follows time, and knows nothing of the technique",
    )
