"""The options that leanmark adds to pytest, and what they mean.

Raises, everywhere:
    pytest.UsageError: an option makes no sense.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from leanmark.errors import LeanmarkError

if TYPE_CHECKING:
    from leanmark.intensity import Intensity, Site
    from leanmark.plan import Plan
    from leanmark.reading.gate import Rule
    from leanmark.rival import Rival
    from leanmark.sampling import SamplingPlan
    from leanmark.thresholds import Thresholds


def add(group: pytest.OptionGroup) -> None:
    group.addoption("--leanmark", action="store_true", dest="leanmark_flag", help="Run leanmark's suite.")
    for name, metavar, text in (
        ("workload", "NAME", "workload"),
        ("technique", "CHAIN", "technique or chain such as prune+int8"),
        ("backend", "NAME", "backend"),
        ("phase", "PHASE", "phase: inference or training"),
        ("batch", "N", "batch size"),
    ):
        group.addoption(
            f"--leanmark-{name}",
            action="append",
            default=[],
            metavar=metavar,
            dest=f"leanmark_{name}",
            help=f"Only this {text}; repeatable.",
        )
    group.addoption(
        "--leanmark-device", metavar="NAME", help="cpu, cuda or cuda:N; by default a GPU if there is one."
    )
    group.addoption("--leanmark-threads", default=1, type=int, metavar="N", help="Of each case; default 1.")
    group.addoption(
        "--leanmark-profile",
        default="quick",
        choices=("quick", "full"),
        help="How many processes and rounds: two to look, or five or more to be sure; default quick.",
    )
    _add_run(group)


def _add_run(group: pytest.OptionGroup) -> None:
    """How the run is made and judged."""
    group.addoption(
        "--leanmark-budget",
        metavar="TIME",
        help="Time for the run: 90s, 5m, 1h; a second pass of --leanmark-fail-on has as much again.",
    )
    for name, metavar, text in (
        ("margin", "METRIC=N%", "The difference that counts, such as latency=1%%; repeatable."),
        ("floor", "METRIC=AMOUNT", "What is smaller never counts, such as latency=100ns; repeatable."),
    ):
        group.addoption(
            f"--leanmark-{name}",
            action="append",
            default=[],
            metavar=metavar,
            dest=f"leanmark_{name}",
            help=text,
        )
    group.addoption(
        "--leanmark-seed", default=0, type=int, metavar="N", help="Seeds the order of everything."
    )
    group.addoption("--leanmark-results", default="results", metavar="DIR", help="Folder of the records.")
    group.addoption(
        "--leanmark-fail-on",
        metavar="RULE",
        help="Such as worse:latency=2.5%%,accuracy: fail the run where a second pass confirms it.",
    )
    group.addoption(
        "--leanmark-instructions",
        default="perf",
        choices=("perf", "callgrind"),
        help="Who counts the instructions of a step: the processor, or valgrind, a minute for each case.",
    )
    group.addoption(
        "--leanmark-target",
        metavar="QUALITY",
        help="Train until it is as good as 97%%, or as its 'stated' target, and say what that takes.",
    )
    group.addoption(
        "--leanmark-against",
        metavar="REF",
        help="Measure each case at this git commit too, in turns with the tree as it is.",
    )
    _add_energy(group)


def _add_energy(group: pytest.OptionGroup) -> None:
    """What is metered beside, and what turns joules into CO2."""
    group.addoption("--leanmark-zone", metavar="NAME", help="Country whose grid turns joules into CO2.")
    for name, metavar, text in (
        ("intensity", "G", "Grid intensity in gCO2e per kWh instead."),
        ("pue", "X", "Facility energy over IT energy; not applied without."),
        ("embodied", "KG", "CO2e of making the device, for its share in a full SCI."),
        ("lifetime", "YEARS", "How long the device is used: 3 unless given."),
        ("request-rate", "HZ", "Meter the energy of inference at this many requests per second too."),
    ):
        group.addoption(f"--leanmark-{name}", type=float, metavar=metavar, help=text)


def selects(config: pytest.Config) -> bool:
    """Whether an option is given that makes sense of the suite alone."""
    names = ("workload", "technique", "backend", "phase", "batch", "budget", "fail_on", "target", "against")
    return any(config.getoption(f"leanmark_{name}") for name in names)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except LeanmarkError as error:
        raise pytest.UsageError(str(error)) from error


def rival(config: pytest.Config) -> Rival | None:
    """The other commit that each case is measured at too."""
    from leanmark.measuring import worktree

    ref = config.getoption("leanmark_against")
    with _told():
        return worktree.resolve(ref, config.invocation_params.dir) if ref else None


def plan(config: pytest.Config, against: Rival | None) -> Plan:
    """What is measured, and how."""
    from leanmark import operations
    from leanmark import plan as plans
    from leanmark.measuring import target as devices
    from leanmark.protocol.messages import WorkloadSpec

    def chosen(name: str) -> tuple[str, ...]:
        return tuple(config.getoption(f"leanmark_{name}"))

    names = chosen("workload") or (operations.SMALL_SET if _asks_for_kernels(config) else ())
    with _told():
        on = devices.choose(config.getoption("leanmark_device"))
        selection = plans.Selection(
            workloads=tuple(WorkloadSpec(name=name) for name in names),
            techniques=chosen("technique"),
            backends=chosen("backend"),
            phases=plans.phases(chosen("phase")),
            batches=plans.batches(chosen("batch")),
            device=on.device,
            gpu=on.gpu,
            threads=config.getoption("leanmark_threads"),
        )
        sampling = _sampling(config)
        return (
            plans.against(selection, sampling, against.commit) if against else plans.make(selection, sampling)
        )


def _sampling(config: pytest.Config) -> SamplingPlan:
    from leanmark import plan as plans

    profile = plans.PROFILES[config.getoption("leanmark_profile")]
    sampling = replace(profile, seed=config.getoption("leanmark_seed"))
    sampling = plans.with_thresholds(sampling, thresholds(config))
    sampling = plans.with_instructions(sampling, config.getoption("leanmark_instructions"))
    if (budget := config.getoption("leanmark_budget")) is not None:
        sampling = plans.with_budget(sampling, budget)
    if (target := config.getoption("leanmark_target")) is not None:
        sampling = plans.with_target(sampling, target)
    if (hz := config.getoption("leanmark_request_rate")) is not None:
        sampling = plans.with_request_rate(sampling, hz)
    return sampling


def _asks_for_kernels(config: pytest.Config) -> bool:
    """``-k kernels`` means single operators, which are no part of the main job."""
    return "kernels" in str(config.getoption("keyword"))


def thresholds(config: pytest.Config) -> Thresholds:
    """The differences that count."""
    from leanmark import thresholds

    with _told():
        return thresholds.parse(config.getoption("leanmark_margin"), config.getoption("leanmark_floor"))


def rules(config: pytest.Config) -> tuple[Rule, ...]:
    """What fails the run."""
    from leanmark.reading import gate

    text = config.getoption("leanmark_fail_on")
    with _told():
        return gate.parse(text, thresholds(config)) if text else ()


def grid(config: pytest.Config) -> Intensity | None:
    """The intensity that is asked for."""
    from leanmark.reading import carbon

    with _told():
        return carbon.chosen(config.getoption("leanmark_zone"), config.getoption("leanmark_intensity"))


def site(config: pytest.Config) -> Site | None:
    """What is stated of the place and the device."""
    from leanmark.reading import sci

    names = ("pue", "embodied", "lifetime")
    with _told():
        return sci.site(*(config.getoption(f"leanmark_{name}") for name in names)).stated
