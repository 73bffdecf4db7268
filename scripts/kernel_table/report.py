"""The table on screen and on disk."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from kernel_table import runtimes
from kernel_table.instruction_sets import Evidence
from kernel_table.rounds import COARSENESS, Line, Ratio
from kernel_table.slices import WHOLE
from kernel_table.targets import Outcome
from leanmark import store
from leanmark.measuring import environment
from leanmark.record import Environment
from leanmark.statistics.stats import MIN_PROCESSES
from leanmark_kernels.ceilings import Ceilings

NOTES = """\
{processes}, in each all contenders of a layer interleaved in {rounds} rounds, in an order of its own. A
time is the median over the processes of their medians; with one thread it is CPU time, which other users
of the machine do not count into, with more wall time, each thread that works having a core of its own, and
idle ones of torch and ONNX Runtime looking for work for 0.2 ms before they sleep. A ratio is library
over ours: above 1, ours is
faster. It is taken in each round, and its interval is {interval}. The best library is the one with the
smallest time among those whose weights are at least as precise (fp32, 16, 8, 4 bits; activations may be
coarser: w8a8 and w4a8 have them in 8 bits, but for OpenVINO's without VNNI); the row of a library holds
it against the fastest of ours with weights as precise as its own. The error is the largest one over the
largest output, against float64 with the weights as they were before they were stored in fewer bits;
without VNNI, int8 sums of the libraries saturate, which shows there, and uint8 weights are their exact
and slower way. FMA and read are shares of this machine's ceilings, the best of a probe in each process;
above 100 % an algorithm saves arithmetic, or the weights lie in a cache. Layers with zeros are in fp32
alone: in fewer bits they take as long as those without. Models have random weights; what ours are made of
is chosen anew in every process. Losses stay in the table."""

ACROSS = "the 95 % t interval over the processes' medians, on the log scale"
ASKED = """\
What is asked of a machine with AVX2, and what was found: met or missed where the whole interval is on that
side, or the error is too large, else near. Most is the ratio that a kernel would have which did the layer's
multiply-adds in fp32 at this machine's ceiling: what is asked beyond it is out of reach of any of them.
Kernels that save multiply-adds, or do them in fewer bits, have no such bound. Weight-only kernels leave
activations as they are; those that round them to 8 bits, too (w8a8), have rows of their own."""
WITHIN = "of these processes alone (none after too few rounds): with two threads others can be twice as fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All lines with one number of threads, by the title of the case.

    ``disturbed`` of ``slices`` were timed while others used or shared the processors.
    """

    processes: int
    rounds: int
    ceilings: Ceilings
    slices: int
    disturbed: int
    cases: dict[str, list[Line]]
    asked: dict[str, list[Outcome]]


def text(table: Table) -> Iterable[str]:
    """A table for a terminal."""
    yield f"\n{_ceilings(table.ceilings)}"
    if table.slices:
        yield _disturbed(table)
    for title, lines in table.cases.items():
        yield from _lines_of(title, lines)
    yield ""
    for title, outcomes in table.asked.items():
        for one in outcomes:
            asked, most, found, verdict = _outcome(one)
            yield f"{title:<50}{one.ours:<28}{asked:>16}{most:>6}  {found:<50}{verdict}"


def _lines_of(title: str, lines: Sequence[Line]) -> list[str]:
    """A case as lines of a terminal."""
    found = [f"\n{title:<36}{'µs':>10}{'error':>10}{'FMA':>7}{'read':>7}{'torch / ours':>22}  library / ours"]
    for line in lines:
        mark = "*" if line.ours else " "
        read = "" if line.read_share is None else f"{line.read_share:.0%}"
        text = (
            f"{mark} {line.name:<34}{line.time_us:>10.1f}{line.error:>10.1e}{line.flops_share:>7.0%}{read:>7}"
        )
        torch_over = "" if line.over_torch is None else str(line.over_torch)
        text += f"{torch_over:>22}  {_named(line.over_best or line.over_ours)}"
        found.append(text)
    return found


def write(
    tables: Sequence[Table],
    evidence: Mapping[str, Evidence],
    results: Path,
    command: Sequence[str],
    isa: str = "native",
) -> Path:
    """``results/<machine>/kernels/<time>.json`` and the Markdown page beside it; the page's path.

    With libraries held to an instruction set, ``<time>-<isa>``.
    """
    here = environment.collect()
    folder = results / store.machine_slug(here) / "kernels"
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    content = {
        "started": now.isoformat(timespec="seconds"),
        "commit": environment.commit(Path.cwd()),
        "command": list(command),
        "environment": asdict(here),
        "software": software(),
        "isa": isa,
        "instruction_sets": {name: asdict(one) for name, one in evidence.items()},
        "tables": [asdict(table) for table in tables],
    }
    held = "" if isa == "native" else f"-{isa}"
    path = folder / f"{now:%Y%m%dT%H%M%SZ}{held}.json"
    path.write_text(json.dumps(content, indent=1, default=dict))
    page = path.with_suffix(".md")
    page.write_text("\n".join([*_head(evidence, here, content), *_page(tables)]))
    return page


def software() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "openvino": version("openvino") if runtimes.HAS_OPENVINO else "not installed",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "not set"),
    }


def _head(evidence: Mapping[str, Evidence], here: Environment, content: Mapping[str, Any]) -> Iterable[str]:
    yield (
        "# Kernels"
        if content["isa"] == "native"
        else f"# Kernels, with every library held to {content['isa']}"
    )
    yield ""
    yield f"{content['started']}, commit {content['commit']}, `{' '.join(content['command'])}`"
    yield ""
    yield ", ".join(f"{name} {value}" for name, value in {**here.machine, **software()}.items())
    yield ""
    yield "| library | instruction sets | how that was found |"
    yield "|---|---|---|"
    for name, one in evidence.items():
        yield f"| {name} | {one.instruction_sets} | {one.how} |"
    yield ""


def _page(tables: Sequence[Table]) -> Iterable[str]:
    first = tables[0]
    interval = ACROSS if first.processes >= MIN_PROCESSES else WITHIN
    count = "One process" if first.processes == 1 else f"{first.processes} processes one after another"
    notes = NOTES.format(processes=count, rounds=first.rounds, interval=interval)
    yield textwrap.fill(notes, 110)
    yield ""
    for table in tables:
        yield f"## {threads(table.ceilings.threads)}"
        yield ""
        yield f"{_ceilings(table.ceilings)}."
        if table.slices:
            yield ""
            yield textwrap.fill(f"{_disturbed(table)}.", 110)
        yield ""
        yield from _asked(table)
        yield ""
        yield from _in_short(table)
        yield ""
        yield "| layer | contender | µs | error | FMA | read | torch / ours | library / ours |"
        yield "|---|---|---|---|---|---|---|---|"
        for title, lines in table.cases.items():
            for line in lines:
                yield _row(title, line)
        yield ""


def threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _ceilings(ceilings: Ceilings) -> str:
    return (
        f"Ceilings with {threads(ceilings.threads)}: {ceilings.flops_per_s / 1e9:.1f} GFLOP/s fp32, "
        f"{ceilings.read_bytes_per_s / 1e9:.1f} GB/s read from memory"
    )


def _disturbed(table: Table) -> str:
    return (
        f"A slice waits until a probe just before and after it finds {WHOLE:.0%} of the additions that these "
        "cores can do: until nobody else uses or shares them. "
        f"{table.disturbed} of {table.slices} waited in vain"
    )


def _asked(table: Table) -> Iterable[str]:
    yield textwrap.fill(ASKED, 110)
    yield ""
    yield "| layer | ours | library / ours, asked with AVX2 | most | found | |"
    yield "|---|---|---|---|---|---|"
    for title, outcomes in table.asked.items():
        for one in outcomes:
            yield f"| {' | '.join((title, one.ours, *_outcome(one)))} |"


def _outcome(one: Outcome) -> tuple[str, str, str, str]:
    """What is asked, the most, what was found, the verdict."""
    asked, most, found, verdict = f"{one.asked:g}", "", _named(one.ratio), str(one.verdict)
    if one.limit is not None:
        asked, found = f"{asked}, error {one.limit:.0e}", f"{found}, error {one.error:.1e}"
    if one.most is not None:
        most = f"{one.most:.2f}"
        verdict += ", out of reach" if one.most < one.asked else ""
    return asked, most, found, verdict


def _in_short(table: Table) -> Iterable[str]:
    """The fastest of ours for each precision of the weights."""
    yield "| layer | weights | ours | torch / ours | best library / ours |"
    yield "|---|---|---|---|---|"
    for title, lines in table.cases.items():
        ours = sorted((line for line in lines if line.ours), key=lambda line: line.time_us)
        fastest = {line.weights: line for line in reversed(ours)}
        for weights in sorted(fastest, key=lambda name: COARSENESS.get(name, 0)):
            line = fastest[weights]
            cells = (title, weights, line.name, str(line.over_torch), _named(line.over_best))
            yield f"| {' | '.join(cells)} |"


def _row(title: str, line: Line) -> str:
    name = f"**{line.name}**" if line.ours else line.name
    read = "" if line.read_share is None else f"{line.read_share:.0%}"
    cells = [title, name, f"{line.time_us:.1f}", f"{line.error:.1e}", f"{line.flops_share:.0%}", read]
    cells += [
        "" if line.over_torch is None else str(line.over_torch),
        _named(line.over_best or line.over_ours),
    ]
    return f"| {' | '.join(cells)} |"


def _named(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio} {ratio.against}"
