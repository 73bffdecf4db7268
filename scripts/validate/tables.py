"""Lines of a journal to the tables they stand for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from leanmark import units
from leanmark.statistics.stats import wilson

if TYPE_CHECKING:
    from contests import Judged
    from journal import Line

OURS = "leanmark, verdict at a margin of 2 %"
GATE = "leanmark, gate after confirmation"


def facts(judged: Judged) -> dict[str, Any]:
    """What a journal keeps of a contest."""
    compared = judged.comparison
    ratio = compared.ratio
    return {
        "verdict": compared.verdict,
        "ratio": ratio and [round(bound, 6) for bound in (ratio.low, ratio.value, ratio.high)],
        "processes": compared.processes,
        "pairs": compared.pairs,
        "seconds": round(judged.seconds, 2),
        "findings": sorted({finding.code for finding in compared.findings}),
    }


def progress(lines: Sequence[Line], wanted: int) -> str:
    """One line: how far it is, and the last contest."""
    done = [line for line in lines if "seed" in line]
    last = done[-1]
    low, value, high = last["ratio"] or (float("nan"),) * 3
    return (
        f"{len(done):4d}/{wanted}  +{last['units'] / 10:g} %  {last['verdict']:12}  "
        f"{value:.3f} [{low:.3f}, {high:.3f}]  {last['processes']} processes, {last['seconds']:.1f} s"
    )


def false_alarms(lines: Sequence[Line]) -> Iterator[str]:
    """A Markdown table: the share of contests of identical code that were called better or worse."""
    groups = {
        "quiet": [line for line in lines if not line["neighbour"]],
        "beside a busy core": [line for line in lines if line["neighbour"]],
        "all": list(lines),
    }
    yield (
        "| identical code called better or worse | "
        + " | ".join(f"{name}, {len(group)} contests" for name, group in groups.items())
        + " |"
    )
    yield "| :-- | " + " | ".join("--:" for _ in groups) + " |"
    for rule in (OURS, GATE, *lines[0]["rivals"]):
        cells = [share(sum(called(line, rule) for line in group), len(group)) for group in groups.values()]
        yield f"| {rule} | " + " | ".join(cells) + " |"
    yield ""
    yield f"Verdicts: {tally(lines)}. The 95 % interval holds 1 in {coverage(lines, 1.0)}. {cost(lines)}"


def power(lines: Sequence[Line]) -> Iterator[str]:
    """A Markdown table: the share of slow-downs that were found, and of intervals that hold the truth."""
    contests = [line for line in lines if "seed" in line]
    groups = {units: [line for line in contests if line["units"] == units] for units in units_of(contests)}
    yield (
        "| slow-downs found | "
        + " | ".join(f"{units / 10:g} %, {len(group)} contests" for units, group in groups.items())
        + " |"
    )
    yield "| :-- | " + " | ".join("--:" for _ in groups) + " |"
    for rule in (OURS, *contests[0]["rivals"]):
        cells = [
            share(sum(answer(line, rule) == "worse" for line in group), len(group))
            for group in groups.values()
        ]
        yield f"| {rule} | " + " | ".join(cells) + " |"
    cells = [coverage(group, group[0]["truth"]) for group in groups.values()]
    yield "| leanmark, 95 % interval holds the truth | " + " | ".join(cells) + " |"
    yield ""
    counted = next(line["counted"] for line in lines if "counted" in line)
    yield f"{verified(counted)} {cost(contests)}"


def verified(counted: Mapping[str, float | None]) -> str:
    """What the instructions say of the ratios that counting units gives."""
    known = {int(units) / 1000: ratio for units, ratio in counted.items() if ratio is not None}
    if not known:
        return "The true ratio is that of the units counted; valgrind was not there to check it."
    checks = ", ".join(f"{1 + extra:.3f} ({ratio:.5f})" for extra, ratio in known.items())
    return f"The true ratio is that of the units counted (of the instructions executed): {checks}."


def agreement(found: Mapping[str, Sequence[Sequence[Any]]]) -> Iterator[str]:
    """A Markdown table: leanmark's figure, the other instrument's, and how far apart they are."""
    yield "| quantity | leanmark | other instrument | difference |"
    yield "| :-- | --: | --: | --: |"
    for name, ours, theirs in found["latency"]:
        yield _beside(f"latency, {name}, torch.utils.benchmark", ours, theirs, units.seconds)
    for name, what, ours, bare in found["memory"]:
        yield _beside(f"peak memory, {name} {what}, VmHWM of a bare run", ours, bare, units.size)
    for name, ours, by_torch, expected in found["work"]:
        known = "torch's counter" if by_torch == expected else f"by hand; torch's counter says {by_torch:,}"
        yield f"| MACs, {name}, {known} | {ours:,} | {expected:,} | {ours - expected:,} |"


def _beside(what: str, ours: float, theirs: float, unit: Callable[[float], str]) -> str:
    return f"| {what} | {unit(ours)} | {unit(theirs)} | {ours / theirs - 1:+.2%} |"


def overhead(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A Markdown table of what leanmark itself costs."""
    yield "| what leanmark costs | | of a block of 1 ms |"
    yield "| :-- | --: | --: |"
    for one in found:
        of_block = "" if one["of_block"] is None else f"{one['of_block']:.3%}"
        yield f"| {one['name']} | {one['text']} | {of_block} |"


def called(line: Line, rule: str) -> bool:
    """Whether ``rule`` told identical code apart; a gate looks at worse only."""
    return bool(line["confirmed"]) if rule == GATE else answer(line, rule) in ("better", "worse")


def answer(line: Line, rule: str) -> str:
    return str(line["verdict"] if rule == OURS else line["rivals"][rule])


def share(count: int, total: int) -> str:
    """``1.3 % [0.4, 4.7]`` with Wilson's interval."""
    if not total:
        return "–"
    found = wilson(count, total)
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def coverage(lines: Sequence[Line], truth: float) -> str:
    intervals = [line["ratio"] for line in lines if line["ratio"]]
    return share(sum(low <= truth <= high for low, _, high in intervals), len(intervals))


def tally(lines: Sequence[Line]) -> str:
    counts = Counter(line["verdict"] for line in lines)
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())


def cost(lines: Sequence[Line]) -> str:
    """What a contest took."""
    return (
        f"A contest took {median(line['seconds'] for line in lines):.1f} s and "
        f"{median(line['processes'] for line in lines):g} processes of each side, in the median."
    )


def units_of(lines: Sequence[Line]) -> list[int]:
    return sorted({line["units"] for line in lines})
