#!/usr/bin/env python3
"""usage: scripts/gpu_table.py [DIR]    what scripts/gpu_kernels.py wrote under DIR, as a table in Markdown

A ratio is that of the library which the target is set against, cold, with its 95 % interval. It counts as
reached where the whole interval does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpu_kernel_cases import OURS, cases

HEAD = """\
| case | ours, µs | against | ratio | target | reached | of the roof | J per call, hot | ratio in J |
|---|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results"), metavar="DIR")
    print("\n".join(lines(parser.parse_args().folder / "gpu-kernels")))


def lines(folder: Path) -> Iterator[str]:
    """The table, and below it what is missing."""
    order = {case.name: place for place, case in enumerate(cases())}
    found = [json.loads(path.read_text()) for path in folder.glob("*.json") if path.stem != "ceilings"]
    yield HEAD
    for each in sorted(found, key=lambda each: order.get(each["case"], len(order))):
        yield row(each)
    failed = sorted(path.stem for path in folder.glob("*.failed"))
    if failed:
        yield f"\nFailed or wrong: {', '.join(failed)}."
    left = [name for name in order if not (folder / f"{name}.json").exists() and name not in failed]
    if left:
        yield f"\nNot measured: {', '.join(left)}."


def row(found: Mapping[str, Any]) -> str:
    """Of one case."""
    (library, ratio), *_ = found["cold"]["ratios"].items()
    share = found["roofline_share"].get(OURS)
    joules = found["energy_hot"]
    cells = (
        found["case"],
        f"{found['cold']['median_us'][OURS]:.1f}",
        library,
        f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]",
        f"{found['target']:g}",
        verdict(ratio, found["target"]),
        "" if share is None else f"{share:.0%}",
        *energy(joules, library),
    )
    return f"| {' | '.join(cells)} |"


def verdict(ratio: Mapping[str, float], target: float) -> str:
    if ratio["low"] >= target:
        return "yes"
    return "no" if ratio["high"] < target else "not resolved"


def energy(found: Mapping[str, Any], library: str) -> tuple[str, str]:
    """Joules and their ratio, or why there are none."""
    if "missing" in found:
        return found["missing"], ""
    ours, ratio = found["per_call"][OURS], found["ratios"][library]
    return (
        f"{ours['joules']:.3g} ± {ours['uncertainty_j']:.1g}",
        f"{ratio['value']:.2f} ± {ratio['uncertainty']:.2f}",
    )


if __name__ == "__main__":
    main()
