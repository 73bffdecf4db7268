"""The options that leanmark adds to pytest."""

from __future__ import annotations

import pytest


def add(group: pytest.OptionGroup) -> None:
    group.addoption("--leanmark", action="store_true", dest="leanmark_flag", help="Run leanmark's suite.")
    for name, metavar, text in (
        ("workload", "NAME", "workload"),
        ("technique", "CHAIN", "technique or chain such as prune+int8"),
        ("backend", "NAME", "backend"),
        ("phase", "PHASE", "inference or training"),
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
    group.addoption("--leanmark-threads", default=1, type=int, metavar="N", help="Threads; default 1.")
    group.addoption(
        "--leanmark-profile", default="quick", choices=("quick", "full"), help="How much to measure."
    )
    _add_run(group)


def _add_run(group: pytest.OptionGroup) -> None:
    """How the run is made and judged."""
    group.addoption("--leanmark-budget", metavar="TIME", help="Time for the whole run: 90s, 5m, 1h.")
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
    group.addoption("--leanmark-seed", default=0, type=int, metavar="N", help="Seeds the order.")
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
    group.addoption("--leanmark-zone", metavar="NAME", help="Country whose grid turns joules into CO2.")
