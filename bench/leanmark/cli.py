"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import leanmark
from leanmark.errors import LeanmarkError, UsageError

if TYPE_CHECKING:
    from leanmark.reading.carbon import Intensity
    from leanmark.store import Records

RESULTS = Path("results")

INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> None:
    """Entry point of the ``leanmark`` command."""
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


def _carbon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    @click.option("--zone", metavar="NAME", help="Country whose grid turns joules into CO2, e.g. FRA.")
    @click.option("--intensity", type=float, metavar="G", help="Grid intensity in gCO2e per kWh instead.")
    @functools.wraps(command)
    def wrapped(*args: Any, zone: str | None, intensity: float | None, **kwargs: Any) -> Any:
        return command(*args, grid=_grid(zone, intensity), **kwargs)

    return wrapped


@group.command()
@click.option("-w", "--workload", "workloads", multiple=True, metavar="NAME", help="Repeatable.")
@click.option("-t", "--technique", "techniques", multiple=True, metavar="CHAIN",
              help="A technique or a chain such as 'prune(ratio=0.7)+int8'. Repeatable.")  # fmt: skip
@click.option("-b", "--backend", "backends", multiple=True, metavar="NAME", help="Repeatable.")
@click.option("--phase", "phases", multiple=True, type=click.Choice(["inference", "training"]))
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), help="Repeatable.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--profile", default="quick", show_default=True, type=click.Choice(["quick", "full"]))
@click.option("--budget", metavar="TIME",
              help="Time for the whole run, such as 90s, 5m or 1h.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seeds the order of everything.")
@click.option(
    "--model", metavar="MODULE:FACTORY", help="Your own model: a function that returns it, trained."
)
@click.option("--data", metavar="MODULE:LOADERS",
              help="Your own data: a function that returns (train, test) batches.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@click.option(
    "--fail-on", metavar="RULE", help="Such as worse:latency=2.5%,accuracy; confirmed by a second pass."
)
@_carbon_options
def run(
    model: str | None,
    data: str | None,
    profile: str,
    budget: str | None,
    seed: int,
    results: Path,
    fail_on: str | None,
    grid: Intensity,
    workloads: tuple[str, ...],
    **axes: Any,
) -> None:
    """Measure, before and after. Without options: every workload and technique, the main job."""
    from leanmark import confirmation, plan
    from leanmark.measuring.campaign import Campaign
    from leanmark.reading import gate
    from leanmark.report import listing, publish
    from leanmark.report.console import console
    from leanmark.report.live import Live

    rules = gate.parse(fail_on) if fail_on else ()
    selection = plan.Selection(workloads=_workloads(workloads, model, data), **axes)
    sampling = replace(plan.PROFILES[profile], seed=seed)
    made = plan.make(selection, plan.with_budget(sampling, budget) if budget else sampling)
    interrupted = False
    with Live() as live, Campaign(made, results, live.notify) as campaign:
        try:
            campaign.run_all()
        except KeyboardInterrupt:
            interrupted = True
    pages = publish.publish(campaign.path, grid)
    _print([campaign.path], grid)
    click.echo(f"\nrecords  {campaign.path}\nsummary  {pages.markdown}\npage     {pages.html}")
    if interrupted:
        click.echo("interrupted: the finished measurements above are kept", err=True)
        sys.exit(INTERRUPTED)
    if any(one.status in ("failed", "invalid") for one in campaign.measurements):
        sys.exit(1)
    with Live() as live:
        worse = confirmation.confirmed(made, campaign.path, rules, results, live.notify)
    if worse:
        listing.rulings(worse, console())
        sys.exit(gate.GATE_FAILED)


@group.command("gate")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--fail-on", required=True, metavar="RULE", help="Such as worse:latency=2.5%,accuracy.")
@click.option("--since", type=click.Path(path_type=Path), metavar="FILE",
              help="Judge each case against itself in this older run of the same machine.")  # fmt: skip
@click.option("--require-conclusive", is_flag=True, help="Exit with 4 where something could not be judged.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def gate_(
    paths: tuple[Path, ...], fail_on: str, since: Path | None, require_conclusive: bool, results: Path
) -> None:
    """Judge stored records: exit with 3 where a technique is worse than its baseline.

    Exit codes: 0 nothing is worse, 1 a case is failed or invalid, 2 wrong usage, 3 worse, 4 not everything
    could be judged (with --require-conclusive).
    """
    from leanmark import store
    from leanmark.reading import across, gate, tabulate
    from leanmark.report import listing
    from leanmark.report.console import console

    rules = gate.parse(fail_on)
    records = [store.load(path) for path in list(paths) or [_newest(results)]]
    if since is None:
        found = tuple(gate.rulings(tabulate.build(records), rules))
    else:
        older = store.load(since)
        compared = [one for newer in records for one in across.compare_runs(older, newer)]
        found = tuple(gate.rulings_across(compared, rules))
    verdicts = {one.verdict for one in found}
    undecided = {"inconclusive"} if require_conclusive else set()
    listing.rulings([one for one in found if one.verdict in {"worse", "invalid"} | undecided], console())
    if "worse" in verdicts:
        sys.exit(gate.GATE_FAILED)
    if "invalid" in verdicts:
        sys.exit(1)
    if verdicts & undecided:
        sys.exit(gate.UNDECIDED)


@group.command("list")
@click.argument("kind", required=False, metavar="[KIND]")
def list_(kind: str | None) -> None:
    """Workloads, techniques, backends, devices, meters and outputs, and why one is unavailable."""
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
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@_carbon_options
def show(paths: tuple[Path, ...], results: Path, grid: Intensity) -> None:
    """Show records as tables: the given files, or the newest run."""
    _print(list(paths) or [_newest(results)], grid)


@group.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
@_carbon_options
def report(paths: tuple[Path, ...], results: Path, grid: Intensity) -> None:
    """Write the Markdown summary and the HTML page of each file, or of the newest run."""
    from leanmark.report import publish

    for path in list(paths) or [_newest(results)]:
        pages = publish.publish(path, grid)
        click.echo(f"{pages.markdown}\n{pages.html}")


@group.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
def compare(a: Path, b: Path) -> None:
    """Compare the same cases in two results files: B over A. Refuses what cannot be compared."""
    from leanmark import store
    from leanmark.reading import across
    from leanmark.report import listing
    from leanmark.report.console import console

    listing.comparisons(across.compare_runs(store.load(a), store.load(b)), console())


@group.command()
def doctor() -> None:
    """What on this machine disturbs measuring, and what is missing for energy."""
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
    own = (WorkloadSpec(name=model, data=data),) if model and data else ()
    for option, target in (("--model", model), ("--data", data)):
        if target and not all(target.partition(":")):
            raise UsageError(f"{option} needs module:function, not '{target}'")
    return (*(WorkloadSpec(name=name) for name in names), *own)


def _grid(zone: str | None, intensity: float | None) -> Intensity:
    from leanmark.reading import carbon

    if zone and intensity is not None:
        raise UsageError("give --zone or --intensity, not both")
    if intensity is not None:
        return carbon.explicit(intensity)
    return carbon.for_zone(zone) if zone else carbon.world_average()


def _newest(results: Path) -> Path:
    from leanmark import store

    found = store.find(results)
    if not found:
        raise UsageError(f"no records in {results}: run `leanmark run` first, or name a file")
    return found[0]


def _print(paths: list[Path], grid: Intensity) -> None:
    from leanmark import store
    from leanmark.reading import tabulate
    from leanmark.report.console import console
    from leanmark.report.terminal import render

    records: list[Records] = [store.load(path) for path in paths]
    render(tabulate.build(records, grid), console())
