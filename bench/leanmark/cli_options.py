"""Options that several commands share, already turned into what they mean."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from leanmark import registry
from leanmark.errors import UnknownName, UsageError

results = click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    default=Path("results"),
    show_default=True,
    help="Where the records are, in a folder for each machine.",
)


def records(command: Callable[..., Any]) -> Callable[..., Any]:
    """``paths``: the files that are named, or the newest run."""

    @click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
    @results
    @functools.wraps(command)
    def wrapped(*args: Any, paths: tuple[Path, ...], results: Path, **kwargs: Any) -> Any:
        return command(*args, paths=list(paths) or [newest(results)], **kwargs)

    return wrapped


def file_format(command: Callable[..., Any]) -> Callable[..., Any]:
    """``render``: what makes the text of a file of the format that is named."""
    return click.argument("render", metavar="FORMAT", callback=_renderer)(command)


def _renderer(_context: click.Context, _parameter: click.Parameter, name: str) -> Any:
    formats = [one for one in registry.rows("outputs") if one != "terminal"]
    if name not in formats:
        raise UnknownName("format", name, formats)
    return registry.load("outputs", name)


def newest(results: Path, against: str | None = None) -> Path:
    """The newest run under ``results``, or that of the tree as it is against a git commit.

    Raises:
        UsageError: there is none.
    """
    from leanmark import store

    found = store.find(results)
    if against is not None:
        return _of_this_tree(found, results, against)
    if not found:
        raise UsageError(f"no records in {results}: run `leanmark run` first, or name a file")
    return found[0]


def _of_this_tree(found: Iterable[Path], results: Path, ref: str) -> Path:
    from leanmark import store
    from leanmark.measuring import environment, worktree

    rival, here = worktree.resolve(ref, Path.cwd()), environment.commit(Path.cwd())
    for path in found:
        run = store.load(path).run
        if (run.against and run.against.commit, run.commit) == (rival.commit, here):
            return path
    raise UsageError(
        f"no run in {results} measured {here} against {rival}: leanmark run --against {ref} does, and with "
        "--fail-on judges it too"
    )


def carbon(command: Callable[..., Any]) -> Callable[..., Any]:
    """``grid``: the intensity that is asked for, or ``None``."""

    @click.option("--zone", metavar="NAME", help="Country whose grid turns joules into CO2, e.g. FRA.")
    @click.option("--intensity", type=float, metavar="G", help="Grid intensity in gCO2e per kWh instead.")
    @functools.wraps(command)
    def wrapped(*args: Any, zone: str | None, intensity: float | None, **kwargs: Any) -> Any:
        from leanmark.reading import carbon

        return command(*args, grid=carbon.chosen(zone, intensity), **kwargs)

    return wrapped


def site(command: Callable[..., Any]) -> Callable[..., Any]:
    """``site``: what is stated of the place and the device, which may be nothing."""

    @click.option(
        "--pue", type=float, metavar="X", help="Facility energy over IT energy; not applied without."
    )
    @click.option("--embodied", type=float, metavar="KG",
                  help="CO2e of making the device, for its share in a full SCI.")  # fmt: skip
    @click.option(
        "--lifetime", type=float, metavar="YEARS", help="How long the device is used: 3 unless given."
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any, pue: float | None, embodied: float | None, lifetime: float | None, **kwargs: Any
    ) -> Any:
        from leanmark.reading import sci

        return command(*args, site=sci.site(pue, embodied, lifetime), **kwargs)

    return wrapped


def threshold(command: Callable[..., Any]) -> Callable[..., Any]:
    """``asked``: the differences that count."""

    @click.option(
        "--margin", "margins", multiple=True, metavar="METRIC=N%",
        help="The difference that counts, such as latency=1%; by default 2%, of accuracy 1%.",
    )  # fmt: skip
    @click.option("--floor", "floors", multiple=True, metavar="METRIC=AMOUNT",
                  help="What is smaller never counts, such as latency=100ns or memory=1MiB.")  # fmt: skip
    @functools.wraps(command)
    def wrapped(*args: Any, margins: tuple[str, ...], floors: tuple[str, ...], **kwargs: Any) -> Any:
        from leanmark import thresholds

        return command(*args, asked=thresholds.parse(margins, floors), **kwargs)

    return wrapped
