#!/usr/bin/env python
"""Our operators against the libraries, layer by layer; writes the table under results/<machine>/kernels/.

usage: kernel_bench.py [--threads N]... [--processes N] [--rounds N] [--no-compile] [--dry] [FILTER ...]
e.g.   kernel_bench.py                        everything, one thread and two: ten minutes
       kernel_bench.py --dry --processes 1 'conv 3x3 64' linear

ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 lowers torch, oneDNN and ours to AVX2. ONNX Runtime and MKL
cannot be lowered: on a CPU with AVX-512 they are then ahead by it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from kernel_table import cases, processes, report, rounds
from kernel_table.processes import Request

from leanmark_kernels.ceilings import Ceilings


def main() -> None:
    arguments = _arguments()
    began = time.monotonic()
    flops = {
        case.title: case.flops
        for case in cases.every()
        if not arguments.filters or any(word in case.title for word in arguments.filters)
    }
    if not flops:
        sys.exit(f"no layer is called like {', '.join(arguments.filters)}")
    print(", ".join(f"{name} {version}" for name, version in report.software().items()))
    tables = [_table(threads, flops, arguments) for threads in arguments.threads or (1, 2)]
    print(f"\n{time.monotonic() - began:.0f} s")
    if not arguments.dry:
        print(report.write(tables, arguments.results, ["kernel_bench.py", *sys.argv[1:]]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="only titles that contain one of these")
    parser.add_argument("--threads", type=int, action="append", help="repeatable; 1 and 2 by default")
    parser.add_argument("--processes", type=int, default=5, help="from 5 on, intervals are across them")
    parser.add_argument("--rounds", type=int, default=7, help="of each process")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which compiles")
    parser.add_argument("--results", type=Path, default=Path("results"))
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
    lines = {
        title: rounds.lines([one.samples[title] for one in found], count, ceilings)
        for title, count in flops.items()
    }
    table = report.Table(
        processes=arguments.processes, rounds=arguments.rounds, ceilings=ceilings, cases=lines
    )
    print("\n".join(report.text(table)), flush=True)
    return table


if __name__ == "__main__":
    # read once, when torch is loaded, and inherited by the processes that measure: idle threads must not spin
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
