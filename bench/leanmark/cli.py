"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

import leanmark
from leanmark import cli_options
from leanmark.errors import LeanmarkError, UsageError, WorkerRaised

if TYPE_CHECKING:
    from leanmark.intensity import Intensity, Site
    from leanmark.measuring.source import Source
    from leanmark.plan import Plan
    from leanmark.reading.gate import Rule
    from leanmark.reading.table import Table
    from leanmark.store import Records
    from leanmark.thresholds import Thresholds

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    """Entry point of the ``leanmark`` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # µ where it cannot be said: as stderr does
    try:
        sys.exit(group.main(standalone_mode=False))
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except LeanmarkError as error:
        click.echo(f"leanmark: {error}", err=True)
        sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(leanmark.__version__, prog_name="leanmark")
def group() -> None:
    """What an efficiency technique buys on this machine, and what it costs, with error bars."""


@group.command()
@click.option("-w", "--workload", "workloads", multiple=True, metavar="NAME",
              help="A row of `leanmark list workloads`. Repeatable.")  # fmt: skip
@click.option("-t", "--technique", "techniques", multiple=True, metavar="CHAIN",
              help="A technique or a chain such as 'prune(ratio=0.7)+int8'. Repeatable.")  # fmt: skip
@click.option("-b", "--backend", "backends", multiple=True, metavar="NAME",
              help="A row of `leanmark list backends`. Repeatable.")  # fmt: skip
@click.option("--phase", "phases", multiple=True, type=click.Choice(["inference", "training"]),
              help="By default both. Repeatable.")  # fmt: skip
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1),
              help="Samples in a step; by default 1 and 32, in training 32. Repeatable.")  # fmt: skip
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:N; by default a GPU if there is one.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Of each case.")
@click.option("--profile", default="quick", show_default=True, type=click.Choice(["quick", "full"]),
              help="How many processes and rounds: two to look, or five or more to be sure.")  # fmt: skip
@click.option("--budget", metavar="TIME",
              help="Time for the run, such as 5m; a second pass of --fail-on has it again.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seeds the order of everything.")
@click.option(
    "--model", metavar="MODULE:FACTORY", help="Your own model: a function that returns it, trained."
)
@click.option("--data", metavar="MODULE:LOADERS",
              help="Your own data: a function that returns (train, test) batches.")  # fmt: skip
@cli_options.results
@click.option(
    "--fail-on", metavar="RULE", help="Such as worse:latency=2.5%,accuracy; confirmed by a second pass."
)
@click.option(
    "--instructions", default="perf", show_default=True, type=click.Choice(["perf", "callgrind"]),
    help="Who counts the instructions of a step: the processor, or valgrind, a minute for each case.",
)  # fmt: skip
@click.option("--request-rate", type=float, metavar="HZ",
              help="Meter the energy of inference at this many requests per second too.")  # fmt: skip
@click.option("--target", metavar="QUALITY",
              help="Train each workload until it is as good as 97%, or as its 'stated' target, and say what "
                   "that takes.")  # fmt: skip
@click.option("--against", metavar="REF",
              help="Measure each case at this git commit too, in turns with the tree as it is.")  # fmt: skip
@cli_options.threshold
@cli_options.carbon
@cli_options.site
def run(
    model: str | None,
    data: str | None,
    profile: str,
    budget: str | None,
    seed: int,
    results: Path,
    fail_on: str | None,
    request_rate: float | None,
    target: str | None,
    against: str | None,
    instructions: Literal["perf", "callgrind"],
    grid: Intensity | None,
    site: Site,
    asked: Thresholds,
    workloads: tuple[str, ...],
    device: str | None,
    **axes: Any,
) -> None:
    """Measure, before and after. Without options: the main job, small models and common techniques.

    With --against: every workload unchanged, this tree over that commit.
    """
    from leanmark import plan
    from leanmark.measuring import target as devices
    from leanmark.measuring import worktree
    from leanmark.protocol.process import interrupted_by_sigterm
    from leanmark.reading import gate

    rules = gate.parse(fail_on, asked) if fail_on else ()
    on = devices.choose(device)
    selection = plan.Selection(
        workloads=_workloads(workloads, model, data), device=on.device, gpu=on.gpu, **axes
    )
    sampling = replace(plan.PROFILES[profile], seed=seed)
    sampling = plan.with_instructions(sampling, instructions)
    if budget is not None:
        sampling = plan.with_budget(sampling, budget)
    if request_rate is not None:
        sampling = plan.with_request_rate(sampling, request_rate)
    if target is not None:
        sampling = plan.with_target(sampling, target)
    sampling = plan.with_thresholds(sampling, asked)
    if against is None:
        with interrupted_by_sigterm():
            made = replace(plan.make(selection, sampling), site=site.stated)
            sys.exit(_measure(made, results, rules, grid))
    rival = worktree.resolve(against, Path.cwd())
    made = replace(plan.against(selection, sampling, rival.commit), site=site.stated)
    click.echo(f"leanmark: checking out and building {rival} beside this tree", err=True)
    with interrupted_by_sigterm(), worktree.beside(rival, Path.cwd()) as source:
        sys.exit(_measure(made, results, rules, grid, source))


def _measure(
    made: Plan, results: Path, rules: Sequence[Rule], grid: Intensity | None, rival: Source | None = None
) -> int:
    """Run the plan and print what came of it; the exit code."""
    from leanmark import confirmation
    from leanmark.measuring.campaign import Campaign
    from leanmark.reading import gate
    from leanmark.report import listing, publish
    from leanmark.report.console import console
    from leanmark.report.live import Live

    for reason in made.left_out:
        click.echo(f"leanmark: {reason}", err=True)
    made = replace(made, intensity=grid)
    interrupted = False
    with Live() as live, Campaign(made, results, live.notify, rival) as campaign:
        try:
            campaign.run_all()
        except KeyboardInterrupt:
            interrupted = True
    _print([campaign.path], grid, without=campaign.unprepared)
    for name, error in campaign.unprepared.items():
        trace = f"{error.traceback}\n" if isinstance(error, WorkerRaised) else ""
        click.echo(f"\n{trace}leanmark: nothing of {name} could be measured: {error}", err=True)
    click.echo(f"\nrecords  {campaign.path}")
    pages = publish.publish(campaign.path, grid)
    click.echo(f"summary  {pages.markdown}\npage     {pages.html}")
    if interrupted:
        click.echo("interrupted: the finished measurements above are kept", err=True)
        return INTERRUPTED
    if any(one.status in ("failed", "invalid") for one in campaign.measurements):
        return 1
    if not rules:
        return 0
    with Live() as live:
        worse = confirmation.confirmed(made, campaign.path, rules, results, live.notify, rival)
    if worse:
        listing.rulings(worse, console())
        return gate.GATE_FAILED
    return 0


@group.command("gate")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--fail-on", required=True, metavar="RULE", help="Such as worse:latency=2.5%,accuracy.")
@click.option("--since", type=click.Path(path_type=Path), metavar="FILE",
              help="Judge each case against itself in this older run of the same machine.")  # fmt: skip
@click.option("--against", metavar="REF",
              help="Judge the newest run of this tree that was made against this git commit.")  # fmt: skip
@click.option("--require-conclusive", is_flag=True, help="Exit with 4 where something could not be judged.")
@cli_options.results
def gate_(
    paths: tuple[Path, ...],
    fail_on: str,
    since: Path | None,
    against: str | None,
    require_conclusive: bool,
    results: Path,
) -> None:
    """Judge stored records: exit with 3 where something is worse.

    A technique is judged against its baseline, with --since and --against a case against itself. What is
    counted needs no quiet machine: worse:operator_calls,flops,allocations,instructions.

    Exit codes: 0 nothing is worse, 1 a case is failed or invalid, 2 wrong usage, 3 worse, 4 not everything
    could be judged (with --require-conclusive).
    """
    from leanmark import store
    from leanmark.reading import gate, tabulate
    from leanmark.report import listing
    from leanmark.report.console import console

    if against is not None and (paths or since):
        raise UsageError("--against finds the run by itself: give it, FILE or --since, not two of them")
    chosen = list(paths) or [cli_options.newest(results, against)]
    records = [store.load(path) for path in chosen]
    rules = gate.parse(fail_on, records[0].run.plan.thresholds)
    if since is None:
        found = tuple(gate.rulings(tabulate.build(records), rules))
    else:
        older = store.load(since)
        found = tuple(one for newer in records for one in gate.since(older, newer, rules))
    if not found:
        raise UsageError(
            f"nothing to judge in {', '.join(map(str, chosen))}: no case has another to compare to"
        )
    doubts = [doubt.message for one in records for doubt in one.findings]
    for doubt in doubts:
        click.echo(f"leanmark: {doubt}", err=True)
    objected = {"worse", "invalid", "inconclusive"} if require_conclusive else {"worse", "invalid"}
    objections = [one for one in found if one.verdict in objected]
    if objections:
        listing.rulings(objections, console())
    else:
        listing.passed(found, console())
    undecided = gate.UNDECIDED if doubts and require_conclusive else 0
    sys.exit(gate.exit_code(objections) or undecided)


@group.command("list")
@click.argument("kind", required=False, metavar="[KIND]")
def list_(kind: str | None) -> None:
    """What there is, and why something is unavailable.

    KIND is workloads, techniques, backends, devices, meters or outputs: without it, all of them.
    """
    from leanmark import catalogue
    from leanmark.errors import UnknownName
    from leanmark.registry import KINDS
    from leanmark.report import listing
    from leanmark.report.console import console

    if kind is not None and kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    for one in [kind] if kind else KINDS:
        listing.catalogue(one, tuple(catalogue.items(one)), console())


@group.command()
@cli_options.records
@cli_options.carbon
def show(paths: list[Path], grid: Intensity | None) -> None:
    """Show records as tables: the given files, or the newest run."""
    _print(paths, grid)


@group.command()
@cli_options.records
@cli_options.carbon
def report(paths: list[Path], grid: Intensity | None) -> None:
    """Write the Markdown summary and the HTML page of records.

    They lie beside each of the given files, or beside the newest run.
    """
    from leanmark.report import publish

    for path in paths:
        pages = publish.publish(path, grid)
        click.echo(f"{pages.markdown}\n{pages.html}")


@group.command()
@cli_options.file_format
@cli_options.records
@cli_options.carbon
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Written whole or not at all; by default to the standard output.")  # fmt: skip
def export(
    render: Callable[[Sequence[Table]], str],
    paths: list[Path],
    grid: Intensity | None,
    output: Path | None,
) -> None:
    """Write records for machines: the given files, or the newest run.

    FORMAT is csv, github-action-benchmark, bencher, prometheus, markdown or html (`leanmark list outputs`).
    """
    from leanmark.reading import figures

    records, tables = _read(paths, grid)
    text = render(tables)
    if output is None:
        click.echo(text.encode(), nl=False)
    else:
        from leanmark.report import publish

        publish.write(output, text)
    for doubt in (*(doubt.message for one in records for doubt in one.findings), figures.absent(tables)):
        if doubt:
            click.echo(f"leanmark: {doubt}", err=True)


@group.command("carbon")
@cli_options.records
@cli_options.carbon
@cli_options.site
def carbon_(paths: list[Path], grid: Intensity | None, site: Site) -> None:
    """Software carbon intensity (ISO/IEC 21031) of stored records.

    For 1000 samples: E x PUE x I + M, anew with any factor. All rows, and so both sides of a comparison, get
    one intensity. What is not given is what the run was made with.
    """
    from leanmark import store
    from leanmark.reading import carbon, sci, tabulate
    from leanmark.report import footprint
    from leanmark.report.console import console

    for path in paths:
        records = store.load(path)
        boundary = sci.boundary(records.run, carbon.of(records.run, grid), site)
        footprint.render(tabulate.build([records], boundary.intensity), boundary, console())


@group.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
def compare(a: Path, b: Path) -> None:
    """Compare the same cases in two results files: B over A. Refuses what cannot be compared."""
    from leanmark import store
    from leanmark.reading import across
    from leanmark.report import listing
    from leanmark.report.console import console

    older, newer = store.load(a), store.load(b)
    listing.comparisons(across.compare_runs(older, newer), across.uncompared(older, newer), console())


@group.command()
def doctor() -> None:
    """What disturbs measuring here, and what is missing for energy."""
    from leanmark import doctor as examination
    from leanmark.measuring import environment
    from leanmark.report import listing
    from leanmark.report.console import console

    here = environment.collect()
    listing.diagnoses(here, tuple(examination.examine(here)), console())


def _workloads(names: tuple[str, ...], model: str | None, data: str | None) -> tuple[Any, ...]:
    from leanmark.protocol.messages import WorkloadSpec

    if (model is None) != (data is None):
        raise UsageError("--model and --data go together: a model is measured with its quality")
    for option, target in (("--model", model), ("--data", data)):
        if target is not None and not all(target.partition(":")):
            raise UsageError(f"{option} needs module:function, not '{target}'")
    own = () if model is None else (WorkloadSpec(name=model, data=data),)
    return (*(WorkloadSpec(name=name) for name in names), *own)


def _print(paths: list[Path], grid: Intensity | None, without: Container[str] = ()) -> None:
    """The tables of these files, but for those of the workloads ``without``."""
    from leanmark.report.console import console
    from leanmark.report.terminal import render

    _, tables = _read(paths, grid)
    shown = [table for table in tables if table.rows[0].case.workload not in without]
    if shown or not without:
        render(shown, console())


def _read(paths: list[Path], grid: Intensity | None) -> tuple[list[Records], list[Table]]:
    """The records of these files, and their tables."""
    from leanmark import store
    from leanmark.reading import carbon, tabulate

    records = [store.load(path) for path in paths]
    tables = [table for one in records for table in tabulate.build([one], carbon.of(one.run, grid))]
    return records, tables
