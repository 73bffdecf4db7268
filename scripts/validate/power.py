"""How often a slow-down of 3 % and of 5 % is found, and how often the 95 % interval holds the truth.

The candidate does 30 or 50 more of the same 1,000 units, so the true ratio is known by counting; that
counting is right is checked beforehand by the instructions executed. What is found is appended to
results/<machine>/validation/power.jsonl as it comes; started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from itertools import groupby
from pathlib import Path

import tables
import work
from contests import GENERATION, Arena, true_ratio
from journal import RESULTS, Journal, Line
from work import UNITS

from leanmark.machine import callgrind
from leanmark.protocol.process import allowed_cores

EXTRAS = (30, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--contests", type=int, default=100, help="of each slow-down (100)")
    parser.add_argument("--budget", type=float, default=2.5, help="seconds for each contest (2.5)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    journal = Journal(options.results, "power", budget_s=options.budget)
    done = {(line["seed"], line["units"]) for line in journal.lines if "seed" in line}
    if not any("counted" in line for line in journal.lines):
        journal.append({"counted": {str(units): counted(units) for units in EXTRAS}})
    wanted = [(seed, units) for seed in range(options.contests) for units in EXTRAS]
    missing = [pair for pair in wanted if pair not in done]
    for generation, group in groupby(missing, lambda pair: pair[0] * len(EXTRAS) // GENERATION):
        with Arena(EXTRAS, options.budget, generation) as arena:
            for seed, units in group:
                journal.append(one(arena, seed, units))
                print(tables.progress(journal.lines, len(wanted)), flush=True)
    for line in tables.power(journal.lines):
        print(line)


def counted(units: int) -> float | None:
    """The ratio of the instructions of ``units`` more and of none; ``None`` without valgrind."""
    if callgrind.unavailable():
        return None
    more, plain = (callgrind.instructions(Path(work.__file__), count) for count in (UNITS + units, UNITS))
    return more / plain


def one(arena: Arena, seed: int, units: int) -> Line:
    judged = arena.judge(units, seed, allowed_cores())
    return {
        "seed": seed,
        "units": units,
        "truth": true_ratio(units),
        **tables.facts(judged),
        "gate": judged.gate,
        "rivals": arena.ask_rivals(units),
    }


if __name__ == "__main__":
    main()
