"""Another commit beside the user's tree: real git repositories, as small as they get."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from leanmark.errors import CannotBuild, UsageError
from leanmark.measuring import worktree
from leanmark.measuring.source import Mapped, Source

IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")

EXTENSION = """\
#include <Python.h>
static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(ANSWER); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {0}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "deep", "", -1, methods};
PyMODINIT_FUNC PyInit_deep(void) { return PyModule_Create(&module); }
"""

SETUP = """\
from setuptools import Extension, setup
module = Extension("deep", ["deep.c"], define_macros=[("ANSWER", "ONE")])
setup(name="deep", version="1", py_modules=[], ext_modules=[module])
"""


def git(folder: Path, *words: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *IDENTITY, *words], cwd=folder, env=kept, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "x")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, mine__py="VALUE = 1\n")
    commit(folder, mine__py="VALUE = 2\n")
    return folder


def runs(source: Source, code: str) -> str:
    done = subprocess.run(
        [source.interpreter, "-P", "-c", code],
        cwd=source.folder,
        env=source.environment(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


IMPORT_MINE = "import sys, os; sys.path.append(os.getcwd()); import mine; print(mine.VALUE, mine.__file__)"


def test_the_other_commit_is_imported_and_the_tree_left_alone(repository: Path) -> None:
    (repository / "mine.py").write_text("VALUE = 3\n")
    (repository / "new.py").write_text("")
    git(repository, "add", "new.py")
    before = git(repository, "status", "--porcelain")
    rival = worktree.resolve("HEAD~1", repository)
    with worktree.beside(rival, repository) as source:
        value, file = runs(source, IMPORT_MINE).split()
        tree = Path(file).parent
        assert value == "1"
        assert git(repository, "status", "--porcelain") == before
    assert not tree.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "status", "--porcelain") == before
    assert (repository / "mine.py").read_text() == "VALUE = 3\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_it_is_removed_whatever_happens(repository: Path, error: type[BaseException]) -> None:
    left: list[Path] = []
    with pytest.raises(error), worktree.beside(worktree.resolve("HEAD", repository), repository) as source:
        left.append(Path(source.interpreter).parents[2])
        raise error
    assert not left[0].exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_import_paths_into_the_tree_lead_into_the_other(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{repository}{os.pathsep}{tmp_path}")
    with worktree.beside(worktree.resolve("HEAD~1", repository), repository) as source:
        ours, kept = dict(source.variables)["PYTHONPATH"].split(os.pathsep)
        assert ours == str(source.folder)
        assert kept == str(tmp_path)
        assert runs(source, "import mine; print(mine.VALUE)") == "1"


def test_an_environment_inside_the_tree_is_no_part_of_the_commit(tmp_path: Path) -> None:
    packages = tmp_path / "r" / ".venv" / "lib"
    mapped = Mapped(root=tmp_path / "r", tree=tmp_path / "t", installed=(tmp_path / "r" / ".venv",))
    assert mapped.path(packages) == packages
    assert mapped.path(tmp_path / "r" / "src") == tmp_path / "t" / "src"
    assert mapped.path(tmp_path / "elsewhere") == tmp_path / "elsewhere"


def test_it_sees_what_is_installed_here(repository: Path) -> None:
    with worktree.beside(worktree.resolve("HEAD", repository), repository) as source:
        found = runs(source, "import leanmark, numpy; print(leanmark.__file__, numpy.__file__)").split()
    import leanmark

    assert Path(found[0]).resolve() == Path(leanmark.__file__).resolve()


def test_a_native_extension_is_built_from_its_commit(repository: Path) -> None:
    commit(repository, setup__py=SETUP.replace("ONE", "41"), deep__c=EXTENSION)
    commit(repository, setup__py=SETUP.replace("ONE", "42"))
    with worktree.beside(worktree.resolve("HEAD~1", repository), repository) as source:
        assert runs(source, "import deep; print(deep.answer())") == "41"


def test_a_build_that_fails_shows_its_last_lines(repository: Path) -> None:
    commit(repository, setup__py="raise SystemExit('the compiler is on holiday')\n")
    rival = worktree.resolve("HEAD", repository)
    with (
        pytest.raises(CannotBuild, match=r"(?s)last lines:\n.*the compiler is on holiday"),
        worktree.beside(rival, repository),
    ):
        pass
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize(
    ("pyproject", "named"),
    [
        ("[tool.ruff]\n", None),
        ("[project]\nname = 'mine'\n", "mine"),
        ("[build-system]\nrequires = []\n", ""),
    ],
)
def test_only_a_project_is_installed(tmp_path: Path, pyproject: str, named: str | None) -> None:
    (tmp_path / "pyproject.toml").write_text(pyproject)
    assert worktree._named(tmp_path) == named


def test_a_project_that_is_not_installed_here_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'no-such-project-here'\n")
    assert worktree._project(tmp_path, tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'LeanMark'\n")
    assert worktree._project(tmp_path, tmp_path) == tmp_path


def test_hooks_of_the_repository_stay_out_of_it(repository: Path, tmp_path: Path) -> None:
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    with worktree.beside(worktree.resolve("HEAD", repository), repository):
        pass
    assert not (tmp_path / "ran").exists()


def test_what_cannot_be_checked_out_is_said(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no commit 'nope'"):
        worktree.resolve("nope", repository)
    with pytest.raises(UsageError, match="there is no commit '--help'"):
        worktree.resolve("--help", repository)
    with pytest.raises(UsageError, match="needs a git repository"):
        worktree.resolve("HEAD", tmp_path)
    (repository / "later").mkdir()
    with (
        pytest.raises(UsageError, match="has no folder later"),
        worktree.beside(worktree.resolve("HEAD", repository), repository / "later"),
    ):
        pass


def test_a_module_from_the_wrong_tree_is_told() -> None:
    import leanmark
    from leanmark.worker.serve import loaded_from

    folder = Path(leanmark.__file__).resolve().parent
    assert {"leanmark", "leanmark.worker.serve"} <= set(loaded_from(folder, ()))
    assert loaded_from(folder, (folder.parent,)) == ()
    assert loaded_from(folder / "nowhere", ()) == ()
