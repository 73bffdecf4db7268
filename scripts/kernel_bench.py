#!/usr/bin/env python
"""Our operators against the libraries, in layers and models; writes the table to results/<machine>/kernels/.

usage: kernel_bench.py [--isa avx2] [--threads N]... [--processes N] [--rounds N] [--no-compile]
                       [--results DIR] [--dry] [FILTER ...]
e.g.   kernel_bench.py                        everything, one thread and two: an hour or more
       kernel_bench.py --isa avx2             the same with all libraries held to AVX2
       kernel_bench.py --dry --processes 1 'conv 3x3 64' linear
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

from kernel_table import avx2, cases, instruction_sets, processes, report, rounds, targets
from kernel_table.processes import Request

from leanmark.protocol.process import allowed_cores
from leanmark_kernels.ceilings import Ceilings

PREPARED = "LEANMARK_KERNEL_BENCH"

SPINS = "5000"
"""How often an idle thread of torch's pool looks for work before it sleeps: for about 0.2 ms."""


def main(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    flops = {
        case.title: case.flops
        for case in cases.every()
        if not arguments.filters or any(word in case.title for word in arguments.filters)
    }
    if not flops:
        titles = "\n  ".join(case.title for case in cases.every())
        sys.exit(f"no layer is called like {' or '.join(arguments.filters)}. There are:\n  {titles}")
    threads, cores = arguments.threads or [1, 2], len(allowed_cores())
    if max(threads) > cores:
        sys.exit(f"--threads {max(threads)}: each needs a core of its own, and this process may use {cores}")
    print(", ".join(f"{name} {version}" for name, version in report.software().items()))
    evidence = instruction_sets.found()
    print("\n".join(f"{name}: {one.instruction_sets} ({one.how})" for name, one in evidence.items()))
    tables = [_table(count, flops, arguments) for count in threads]
    print(f"\n{time.monotonic() - began:.0f} s")
    if not arguments.dry:
        command = ["kernel_bench.py", *sys.argv[1:]]
        print(report.write(tables, evidence, arguments.results, command, arguments.isa))


def _count(text: str) -> int:
    """An argument that is at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # it is in the docstring
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="only titles that contain one of these")
    parser.add_argument("--isa", choices=("native", "avx2"), default="native", help="what libraries may use")
    parser.add_argument("--threads", type=_count, action="append", help="repeatable; 1 and 2 by default")
    parser.add_argument("--processes", type=_count, default=5, help="from 5 on, intervals are across them")
    parser.add_argument("--rounds", type=_count, default=7, help="of each process")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which compiles")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--dry", action="store_true", help="only print")
    return parser.parse_args()


def _table(threads: int, flops: dict[str, int], arguments: argparse.Namespace) -> report.Table:
    request = Request(
        titles=tuple(flops),
        threads=threads,
        rounds=arguments.rounds,
        with_compiled=not arguments.no_compile,
    )
    found = []
    for one in processes.run(request, arguments.processes):
        found.append(one)
        print(f"process {len(found)} of {arguments.processes}, {report.threads(request.threads)}", flush=True)
    ceilings = Ceilings(
        threads=threads,
        flops_per_s=max(one.ceilings.flops_per_s for one in found),
        read_bytes_per_s=max(one.ceilings.read_bytes_per_s for one in found),
    )
    samples = {title: [one.samples[title] for one in found] for title in flops}
    lines = {title: rounds.lines(samples[title], count, ceilings) for title, count in flops.items()}
    asked = {
        title: list(targets.outcomes(title, samples[title], count, ceilings))
        for title, count in flops.items()
    }
    table = report.Table(
        processes=arguments.processes,
        rounds=arguments.rounds,
        ceilings=ceilings,
        slices=sum(one.slices for one in found),
        disturbed=sum(one.disturbed for one in found),
        cases=lines,
        asked=asked,
    )
    print("\n".join(report.text(table)), flush=True)
    return table


def _held(arguments: argparse.Namespace) -> int:
    """This command once more, with the variables that libraries read once, when they are loaded."""
    # threads are still awake for the next layer, as in a program with one library; for the next library's
    # turn they sleep
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    command = [sys.executable, *sys.argv]
    with avx2.environment() if arguments.isa == "avx2" else nullcontext(os.environ) as variables:
        return subprocess.call(command, env={**variables, PREPARED: "1"})


if __name__ == "__main__":
    parsed = _arguments()
    if PREPARED in os.environ:
        main(parsed)
    else:
        try:
            sys.exit(_held(parsed))
        except RuntimeError as error:
            sys.exit(f"kernel_bench.py: {error}")
