"""How often identical code is called better or worse: by leanmark, by its gate, by other tools.

Every other contest has a neighbour that keeps the other core busy, coming and going. What is found is
appended to results/<machine>/validation/false_alarms.jsonl as it comes; started again, it goes on where it
was.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path

import tables
from contests import GENERATION, Arena
from hog import busy
from journal import RESULTS, Journal, Line

from leanmark.protocol.process import allowed_cores

SECOND_PASS = 1_000_000
"""Added to the seed of a contest that confirms another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--contests", type=int, default=300, help="half of them beside a busy core (300)")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each contest (2)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    journal = Journal(options.results, "false_alarms", budget_s=options.budget)
    done = {line["seed"] for line in journal.lines}
    seeds = [seed for seed in range(options.contests) if seed not in done]
    for generation, group in groupby(seeds, lambda seed: seed // GENERATION):
        with Arena([0], options.budget, generation) as arena:
            for seed in group:
                journal.append(one(arena, seed))
                print(tables.progress(journal.lines, options.contests), flush=True)
    for line in tables.false_alarms(journal.lines):
        print(line)


def one(arena: Arena, seed: int) -> Line:
    """A contest of the baseline with itself, confirmed if a gate would object; then what others say."""
    *cores, other = allowed_cores()
    beside = seed % 2 == 1
    neighbour = busy(other, seed) if beside else nullcontext()
    with neighbour:
        place = cores if beside else [*cores, other]
        judged = arena.judge(0, seed, place)
        confirmed = judged.gate and arena.judge(0, seed + SECOND_PASS, place).gate
        answers = arena.ask_rivals(0)
    return {
        "seed": seed,
        "units": 0,
        "neighbour": beside,
        **tables.facts(judged),
        "gate": judged.gate,
        "confirmed": confirmed,
        "rivals": answers,
    }


if __name__ == "__main__":
    main()
