"""This tree against another commit in one run: real repositories, real processes, a model that got slower."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import cli, plan, store
from leanmark.errors import NotComparable
from leanmark.measuring import prepare_pass, worktree
from leanmark.measuring.campaign import Campaign
from leanmark.measuring.launcher import Launcher
from leanmark.measuring.prepare_pass import Prepared
from leanmark.measuring.source import HERE, Source
from leanmark.plan import QUICK, Selection
from leanmark.protocol.layout import Layout
from leanmark.protocol.messages import Ready, WorkloadSpec
from leanmark.reading import tabulate
from leanmark.reading.table import Row
from leanmark.record import Measurement, SamplingPlan
from leanmark.rival import Rival
from leanmark.store import Records

pytestmark = pytest.mark.slow

BESIDE = Path(__file__).parent
IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
LAYOUT = Layout(hash_seed=1, padding_bytes=0, threads=1, wait="passive")

# sleeping, so that whatever else runs on the machine changes the ratio of ten by little
SLOW = """
import time
from torch import nn
import tiny

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = tiny.model()

    def forward(self, inputs):
        time.sleep(STEP_S)
        return {forward}

def model():
    return Slow()

def loaders():
    return tiny.loaders()

STEP_S = {step_s}
"""


def git(folder: Path, *words: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *IDENTITY, *words], cwd=folder, env=kept, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of one file; the second commit is ten times slower and computes twice."""
    folder = tmp_path_factory.mktemp("project")
    git(folder, "init", "-q")
    for text in (
        SLOW.format(step_s=0.001, forward="self.inner(inputs)"),
        SLOW.format(step_s=0.010, forward="(self.inner(inputs) + self.inner(inputs)) / 2"),
    ):
        (folder / "slow.py").write_text(text)
        git(folder, "add", "slow.py")
        git(folder, "commit", "-qm", "x")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(BESIDE), prepend=os.pathsep)
        yield folder


SELECTION = Selection(
    workloads=(WorkloadSpec(name="slow:model", data="slow:loaders"),),
    backends=("eager",),
    phases=("inference",),
    batches=(4,),
)
SAMPLING = replace(QUICK, processes=1, rounds=12, block_s=0.002, warmup_s=5.0, timeout_s=60.0)


def ran(
    folder: Path,
    ref: str,
    results: Path,
    selection: Selection = SELECTION,
    sampling: SamplingPlan = SAMPLING,
) -> Records:
    rival = worktree.resolve(ref, folder)
    made = plan.against(selection, sampling, rival.commit)
    with (
        worktree.beside(rival, folder) as source,
        Campaign(made, results, rival=source) as campaign,
    ):
        campaign.run_all()
    return store.load(campaign.path)


@pytest.fixture(scope="module")
def records(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    return ran(repository, "HEAD~1", tmp_path_factory.mktemp("results"))


def row(records: Records, label: str) -> Row:
    [table] = tabulate.build([records])
    return next(row for row in table.rows if row.case.label == label)


def of(records: Records, pass_name: str, commit: str | None) -> Measurement:
    found = (one for one in records.measurements if one.pass_name == pass_name and not one.case.sentinel)
    return next(one for one in found if one.case.commit == commit)


def test_a_commit_that_made_the_model_slower_is_worse_and_fails_the_gate(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = row(records, "fp32")
    assert (ours.role, ours.verdict) == ("commit", "worse · accuracy same")
    assert ours.latency is not None
    assert ours.latency.comparison is not None
    assert ours.latency.comparison.ratio is not None
    assert 3 < ours.latency.comparison.ratio.value < 12
    for rule in ("worse:latency", "worse:operator_calls"):
        monkeypatch.setattr(sys, "argv", ["leanmark", "gate", str(records.path), "--fail-on", rule])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 3


def test_what_each_side_does_is_counted(records: Records) -> None:
    counted = row(records, "fp32").counted
    assert counted is not None
    calls, flops = counted.counts["operator_calls"], counted.counts["flops"]
    assert (calls.before, calls.value) == (3.0, 8.0)
    assert flops.before == 2 * 4 * (16 * 32 + 32 * 4)
    assert flops.value == 2 * flops.before


def test_the_record_keeps_where_each_measurement_came_from(records: Records, repository: Path) -> None:
    here, there = (git(repository, "rev-parse", "--short=12", ref) for ref in ("HEAD", "HEAD~1"))
    assert records.run.commit == here
    assert records.run.against == Rival(ref="HEAD~1", commit=there)
    for pass_name in ("prepare", "latency", "memory"):
        assert of(records, pass_name, None).status == "ok"
        assert of(records, pass_name, there).status == "ok"
    assert of(records, "latency", None).contest == of(records, "latency", there).contest


def test_quality_is_paired_with_the_other_commits_predictions(records: Records) -> None:
    judged = row(records, "fp32").judged
    assert judged is not None
    assert (judged.quality.gained, judged.quality.lost, judged.quality.agreement) == (0, 0, 1.0)


def test_nothing_is_left_behind(records: Records, repository: Path) -> None:
    assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "status", "--porcelain", "--untracked-files=no") == ""


def test_both_commits_train_to_the_target_in_turns(repository: Path, tmp_path: Path) -> None:
    selection = Selection(
        workloads=(WorkloadSpec(name="mlp"),), backends=("eager",), phases=("training",), batches=(4,)
    )
    sampling = replace(QUICK, processes=1, rounds=6, block_s=0.002, warmup_s=0.02, target=0.5, target_seeds=2)
    found = ran(repository, "HEAD~1", tmp_path, selection, sampling)
    assert found.run.against is not None
    there = found.run.against.commit
    ours, theirs = (of(found, "quality_run", commit) for commit in (None, there))
    assert (ours.status, theirs.status, ours.contest) == ("ok", "ok", theirs.contest)
    turns = [[block.order for block in one.series[0].blocks] for one in (ours, theirs)]
    assert turns == [[0, 1], [1, 0]]
    known = row(found, "fp32").quality_run
    assert known is not None
    assert known.time is not None
    assert known.time.comparison is not None
    assert known.time.comparison.baseline.commit == there
    assert known.time.comparison.reason == "not enough seeds: 2 of the 5 that an interval needs"


def prepared(work: str, source: Source = HERE, **parts: str) -> Prepared:
    ready = Ready(work=work, work_parts=parts, time_s=1.0, model={}, refusals={}, verified={}, doubts=())
    return Prepared(folder=Path(), spec=WorkloadSpec(name="x"), source=source, ready={"fp32": ready})


def test_other_work_is_refused_by_name() -> None:
    there = Source(rival=Rival(ref="main", commit="0" * 12))
    ours = prepared("a", data="1f", recipe="epochs 3", version="1")
    found = prepare_pass.refusal([ours, prepared("b", there, data="1f", recipe="epochs 5", version="1")])
    assert str(found) == (
        "refused: this commit and main (000000000000) do different work; they differ in recipe (epochs 3 / "
        "epochs 5)"
    )
    assert prepare_pass.refusal([ours, prepared("a", there)]) is None
    assert prepare_pass.refusal([ours]) is None


FAKE_SERVER = """
import os, sys, time
if {dies}:
    raise SystemExit("no module of that name")
os.write(int(sys.argv[1]), b'{{}}\\n')
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("dies", "reason"),
    [(False, "is older than any number, here 1-"), (True, "did not start: .*no module of")],
)
def test_a_leanmark_of_another_mind_is_refused_before_anything_runs(
    tmp_path: Path, dies: bool, reason: str
) -> None:
    package = tmp_path / "leanmark" / "worker"
    package.mkdir(parents=True)
    (package / "fork_server.py").write_text(FAKE_SERVER.format(dies=dies))
    for folder in (package, package.parent):
        (folder / "__init__.py").write_text("")
    source = Source(variables=(("PYTHONPATH", str(tmp_path)),), rival=Rival(ref="old", commit="0" * 12))
    with Launcher() as launcher:
        server = launcher.server(LAYOUT, source)
        for _ in range(2):
            with pytest.raises(NotComparable, match=f"(?s){reason}.*leanmark compare OLDER NEWER"):
                server.greet()


def test_pytest_collects_every_case_twice(repository: Path) -> None:
    options = ("--leanmark-against=HEAD~1", "--leanmark-workload=mlp", "--leanmark-phase=training")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--leanmark",
            "--collect-only",
            "-q",
            *options,
        ],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
    )
    names = [line for line in result.stdout.splitlines() if line.startswith("leanmark::")]
    there = git(repository, "rev-parse", "--short=12", "HEAD~1")
    assert names == [
        f"leanmark::mlp/training/b32/fp32@{there}/eager/cpu/t1",
        "leanmark::mlp/training/b32/fp32/eager/cpu/t1",
        "leanmark::mlp/training/b32/fp32-again/eager/cpu/t1",
    ]
