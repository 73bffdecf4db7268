"""``pytest --benchmark``: leanmark's suite as pytest items, one for each case.

The flag ``--leanmark`` always exists. ``--benchmark`` is added only after the repository's own conftest
files were read, and only if none of them (and no other plugin) has taken it.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leanmark import pytest_options
from leanmark.errors import LeanmarkError, UnwritableResults

if TYPE_CHECKING:
    from leanmark.fixture import Leanmark
    from leanmark.measuring.campaign import Campaign
    from leanmark.measuring.source import Source
    from leanmark.progress import Progress
    from leanmark.reading.gate import Ruling
    from leanmark.record import Case, Measurement

SUITE = Path(__file__).with_name("suite.leanmark")
"""Stands for the suite in pytest's collection; any path of a kind that no other plugin collects."""


def pytest_addoption(parser: pytest.Parser) -> None:
    pytest_options.add(parser.getgroup("leanmark", "leanmark: efficiency before and after, with error bars"))


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(parser: pytest.Parser) -> Generator[None, Any, Any]:
    """Add ``--benchmark`` once it is known whether somebody else has it.

    It works from the command line, PYTEST_ADDOPTS, ini files and ``pytest.main``: the final parse comes
    after this.
    """
    result = yield
    if not _taken(parser, "--benchmark"):
        parser.getgroup("leanmark").addoption(
            "--benchmark", action="store_true", dest="leanmark_alias", help="The same as --leanmark."
        )
    return result


@pytest.fixture
def leanmark(request: pytest.FixtureRequest) -> Leanmark:
    """Contests between functions: ``assert leanmark.compare(old, new).latency.not_worse``."""
    from leanmark.fixture import Leanmark

    return Leanmark(
        seed=request.config.getoption("leanmark_seed"),
        margin=pytest_options.thresholds(request.config).margin("latency"),
    )


def _taken(parser: pytest.Parser, flag: str) -> bool:
    """Whether an option of that name exists. pytest has no public way to ask but to parse it."""
    try:
        _, unknown = parser.parse_known_and_unknown_args([flag], argparse.Namespace())
    except pytest.UsageError:  # it exists, and wants a value
        return True
    return flag not in unknown


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not _wanted(config):
        return
    if config.getoption("dist", "no") != "no" and config.getoption("tx", None):  # -n has set both by now
        raise pytest.UsageError(
            "leanmark measures one thing at a time: run it without pytest-xdist (-n 0 or -p no:xdist)"
        )
    session = Session(config)
    config.pluginmanager.register(session, "leanmark-session")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(SUITE)]


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Who asks for a part of the suite and not for the suite is told that nothing is measured."""
    if _wanted(config) or not pytest_options.selects(config):
        return []
    return ["leanmark: nothing is measured without --leanmark, whatever its other options say"]


def _wanted(config: pytest.Config) -> bool:
    return bool(config.getoption("leanmark_flag") or config.getoption("leanmark_alias", False))


class Session:
    """One campaign behind all items; registered only when the suite is wanted."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.rival = pytest_options.rival(config)
        self.grid = pytest_options.grid(config)
        self.plan = replace(
            pytest_options.plan(config, self.rival), intensity=self.grid, site=pytest_options.site(config)
        )
        self.rules = pytest_options.rules(config)
        self.worse: tuple[Ruling, ...] = ()
        self.unconfirmed: LeanmarkError | None = None
        self.campaign: Campaign | None = None
        self._until_finished = contextlib.ExitStack()
        self._source: Source | None = None
        self._selected: list[Case] = []
        self._line = _Line(config)

    @property
    def _results(self) -> Path:
        return self.config.invocation_params.dir / str(self.config.getoption("leanmark_results"))

    def pytest_report_header(self) -> list[str]:
        return [f"leanmark: {reason}" for reason in self.plan.left_out]

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        if file_path != SUITE:
            return None
        suite: Suite = Suite.from_parent(parent, path=file_path, nodeid="leanmark")
        suite.session_of_leanmark = self
        return suite

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._selected = [item.case for item in session.items if isinstance(item, CaseItem)]

    @property
    def broken_runs(self) -> list[Measurement]:
        """Training runs to a target that failed: they are no items, so nothing else would fail by them."""
        made = self.campaign.measurements if self.campaign else []
        return [one for one in made if one.pass_name == "quality_run" and one.status in ("failed", "invalid")]

    def measure(self, case: Case) -> tuple[Measurement, ...]:
        if self.campaign is None:
            from leanmark.measuring.campaign import Campaign
            from leanmark.plan import restrict
            from leanmark.protocol.process import interrupted_by_sigterm

            made = restrict(self.plan, self._selected)
            self._until_finished.enter_context(interrupted_by_sigterm())
            try:
                self._check_out()
                self.campaign = Campaign(made, self._results, self._line.notify, self._source)
            except LeanmarkError as error:  # nothing can be measured: said once, not by every case
                pytest.exit(f"leanmark: {error}", returncode=pytest.ExitCode.USAGE_ERROR)
        found = self.campaign.measure(case)
        self._line.clear()
        return found

    def _check_out(self) -> None:
        """The other commit of a run against one, until the session ends."""
        if self.rival is None or self._source is not None:
            return
        from leanmark.measuring import worktree

        self._source = self._until_finished.enter_context(
            worktree.beside(self.rival, self.config.invocation_params.dir)
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        with self._until_finished:
            self._finish(session)

    def _finish(self, session: pytest.Session) -> None:
        if self.campaign is None:
            return
        self.campaign.__exit__(None, None, None)
        if self.broken_runs:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if session.exitstatus is pytest.ExitCode.INTERRUPTED or not self.rules:
            return
        from leanmark.confirmation import confirmed

        try:
            self.worse = confirmed(
                self.campaign.plan,
                self.campaign.path,
                self.rules,
                self._results,
                self._line.notify,
                self._source,
            )
        except LeanmarkError as error:  # no item is left that could fail by it
            self.unconfirmed = error
        self._line.clear()
        if self.worse or self.unconfirmed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.campaign is None or not self.campaign.measurements:
            return
        from leanmark import store
        from leanmark.reading import carbon, tabulate
        from leanmark.report import publish
        from leanmark.report.console import rendered

        path = self.campaign.path
        records = store.load(path)
        terminalreporter.section("leanmark")
        terminalreporter.write(
            rendered(
                tabulate.build([records], carbon.of(records.run, self.grid)),
                width=shutil.get_terminal_size((120, 24)).columns,
                color=bool(terminalreporter.hasmarkup),
            )
        )
        terminalreporter.write_line("")
        terminalreporter.write_line(f"records  {path}")
        try:
            pages = publish.publish(path, self.grid)
        except UnwritableResults as error:
            terminalreporter.write_line(f"leanmark: {error}", red=True)
        else:
            terminalreporter.write_line(f"summary  {pages.markdown}\npage     {pages.html}")
        for broken in self.broken_runs:
            what = f"{broken.case.workload}, {broken.case.label}: training to its target"
            terminalreporter.write_line(f"{what}: {broken.status}: {broken.reason}", red=True)
        for one in self.worse:
            terminalreporter.write_line(
                f"gate: {one.case.id} is worse in {one.rule.metric}, again in a second pass: {one.reason}",
                red=True,
            )
        if self.unconfirmed:
            terminalreporter.write_line(
                f"gate: the second pass could not be made: {self.unconfirmed}", red=True
            )


class Suite(pytest.File):
    """Collects one item for each case of the plan."""

    session_of_leanmark: Session

    def collect(self) -> Iterator[CaseItem]:
        from leanmark import operations

        for case in self.session_of_leanmark.plan.cases:
            item: CaseItem = CaseItem.from_parent(self, name=case.id)
            item.case = case
            if operations.named(case.workload):
                item.extra_keyword_matches.add("kernels")
            yield item


class CaseItem(pytest.Item):
    """Passes when its case was measured, fails when it is failed or INVALID, else skips."""

    case: Case

    def runtest(self) -> None:
        assert isinstance(self.parent, Suite)
        try:
            found = self.parent.session_of_leanmark.measure(self.case)
        except UnwritableResults as error:  # what comes after could not be kept either
            self.session.shouldfail = str(error)
            raise
        if not found:
            pytest.fail("was not measured: an earlier case ended the contest of both", pytrace=False)
        for one in found:
            if one.status in ("failed", "invalid"):
                raise CaseFailed(one)
            if one.status == "skipped":
                pytest.skip(str(one.reason))
        self.user_properties.extend(properties(found))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CaseFailed | LeanmarkError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.case.id


class CaseFailed(Exception):
    """A case that was not measured, with the reason and the worker's traceback."""

    def __init__(self, measurement: Measurement) -> None:
        status = "INVALID" if measurement.status == "invalid" else measurement.status
        trace = f"\n\n{measurement.traceback}" if measurement.traceback else ""
        super().__init__(f"{status} in the {measurement.pass_name} pass: {measurement.reason}{trace}")


class _Line:
    """One line of progress: rewritten in place on a terminal, a line for each contest elsewhere."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = time.monotonic()
        self._shown = False

    def notify(self, progress: Progress) -> None:
        from leanmark.report.live import describe

        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = self._config.pluginmanager.get_plugin("capturemanager")
        if reporter is None:
            return
        text = describe(progress, time.monotonic() - self._started)
        with capture.global_and_fixture_disabled():
            if reporter.isatty:
                reporter.rewrite(text, erase=True)
                self._shown = True
            else:
                reporter.ensure_newline()
                reporter.write_line(text)

    def clear(self) -> None:
        if self._shown:
            reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
            reporter.rewrite("", erase=True)
            self._shown = False


def properties(found: Sequence[Measurement]) -> Iterator[tuple[str, float]]:
    """What the table says of a case, one value for each metric, named as in an export: for JUnit's XML."""
    from leanmark.reading import figures
    from leanmark.statistics import merge, rounds, stats

    for series in (series for one in merge.merged(found) for series in one.series):
        figure = figures.of(stats.summarize(rounds.bounded(series)))
        yield figure.metric, figure.value
