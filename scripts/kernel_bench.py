#!/usr/bin/env python
"""Our operators against the libraries, layer by layer; writes the table under results/<machine>/kernels/.

usage: kernel_bench.py [--threads N]... [--rounds N] [--no-compile] [--dry] [FILTER ...]
e.g.   kernel_bench.py                        everything, one thread and two: a minute and a half
       kernel_bench.py --dry 'conv 3x3 64' linear

ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 lowers torch, oneDNN and ours to AVX2. ONNX Runtime and MKL
cannot be lowered: on a CPU with AVX-512 they are then ahead by it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from kernel_table import inverted, layers, report, rounds

from leanmark_kernels import ceilings


def main() -> None:
    if "OMP_WAIT_POLICY" not in os.environ:  # read once, when torch is loaded: idle threads must not spin
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("filters", nargs="*", metavar="FILTER", help="only titles that contain one of these")
    parser.add_argument("--threads", type=int, action="append", help="repeatable; 1 and 2 by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which compiles")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--dry", action="store_true", help="only print")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    began = time.monotonic()
    chosen = [
        case
        for case in (*layers.cases(), *inverted.cases())
        if not arguments.filters or any(word in case.title for word in arguments.filters)
    ]
    if not chosen:
        parser.error(f"no layer is called like {', '.join(arguments.filters)}")
    print(", ".join(f"{name} {version}" for name, version in report.software().items()))
    tables = [_table(threads, chosen, arguments) for threads in arguments.threads or (1, 2)]
    print(f"\n{time.monotonic() - began:.0f} s")
    if not arguments.dry:
        print(report.write(tables, arguments.results, ["kernel_bench.py", *sys.argv[1:]]))


def _table(
    threads: int, chosen: list[layers.Case | inverted.InvertedCase], arguments: argparse.Namespace
) -> report.Table:
    torch.set_num_threads(threads)
    found = ceilings.measure()
    print(
        f"\n{threads} thread{'s' * (threads > 1)}: ceilings {found.flops_per_s / 1e9:.1f} GFLOP/s fp32, "
        f"{found.read_bytes_per_s / 1e9:.1f} GB/s read"
    )
    cases = {}
    for case in chosen:
        torch._dynamo.reset()
        cases[case.title] = rounds.measure(case, arguments.rounds, found, not arguments.no_compile)
        print("\n".join(report.lines_of(case.title, cases[case.title])), flush=True)
    return report.Table(ceilings=found, cases=cases)


if __name__ == "__main__":
    main()
