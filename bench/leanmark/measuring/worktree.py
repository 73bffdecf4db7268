"""Another commit of the user's project beside the user's own tree, which is not touched.

A temporary git worktree holds its files. A virtual environment of its own sees all that is installed for
the current interpreter, in the same order; import paths into the user's tree lead into the worktree there.
Where the project is installed here, the other commit is built and installed there, without network. Both are
removed on leaving, whatever happened.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from leanmark.errors import CannotBuild, UsageError
from leanmark.measuring.source import Mapped, Source
from leanmark.rival import Rival

BUILD_TIMEOUT_S = 1800.0

_LAST_LINES = 15
_DIGITS = 12

_HOOK = """\
import os, site, sys
for _folder in {folders!r}:
    site.addsitedir(_folder)
def _mapped(path, root={root!r}, tree={tree!r}, installed={installed!r}):
    real = os.path.realpath(path)
    def inside(folder):
        return real == folder or real.startswith(folder + os.sep)
    return tree + real[len(root):] if inside(root) and not any(map(inside, installed)) else path
sys.path[:] = [_mapped(path) for path in sys.path]
"""
"""Runs at the start of the other interpreter, before anything can be imported from the user's tree."""


def resolve(ref: str, here: Path) -> Rival:
    """What ``ref`` means in the repository of the folder ``here``.

    Raises:
        UsageError: there is no repository, no such commit, or no git.
    """
    root = _root(here)
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode:
        raise UsageError(
            f"--against: there is no commit '{ref}' in {root}. In a shallow clone, as CI makes them, fetch "
            f"it first: git fetch --depth=1 origin {ref}"
        )
    return Rival(ref=ref, commit=found.stdout.strip()[:_DIGITS])


@contextlib.contextmanager
def beside(rival: Rival, here: Path) -> Iterator[Source]:
    """The code of ``rival``, ready to be measured; removed on leaving.

    Raises:
        UsageError: git cannot check it out.
        CannotBuild: it cannot be installed; the message ends with the last lines of the build.
    """
    root = _root(here)
    folder = Path(tempfile.mkdtemp(prefix="leanmark-against-")).resolve()
    tree = folder / "tree"
    try:
        added = _git(root, "worktree", "add", "--quiet", "--detach", str(tree), rival.commit)
        if added.returncode:
            raise UsageError(f"git cannot check out {rival}: {_last_lines(added.stderr)}")
        yield _environment(rival, folder, Mapped(root=root, tree=tree, installed=_installed(root)), here)
    finally:
        _git(root, "worktree", "remove", "--force", str(tree))
        shutil.rmtree(folder, ignore_errors=True)


def _environment(rival: Rival, folder: Path, mapped: Mapped, here: Path) -> Source:
    there = mapped.path(here)
    if not there.is_dir():
        name = there.relative_to(mapped.tree)
        raise UsageError(f"{rival} has no folder {name}: start leanmark in one that it has")
    home = folder / "venv"
    venv.EnvBuilder(symlinks=True).create(home)
    interpreter = home / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    hook = _HOOK.format(
        folders=_site_folders(),
        root=str(mapped.root),
        tree=str(mapped.tree),
        installed=[str(one) for one in mapped.installed],
    )
    (packages / "_leanmark_against.py").write_text(hook)
    (packages / "_leanmark_against.pth").write_text("import _leanmark_against\n")
    path = os.environ.get("PYTHONPATH")
    variables = {"PYTHONPATH": mapped.search_path(path)} if path else {}
    project = _project(there, mapped.tree)
    if project is not None:
        _install(project, interpreter, rival, variables)
    return Source(
        interpreter=str(interpreter),
        folder=there,
        variables=tuple(variables.items()),
        rival=rival,
        foreign=mapped.root,
        installed=mapped.installed,
    )


def _install(project: Path, interpreter: Path, rival: Rival, variables: dict[str, str]) -> None:
    """With the pip of the current interpreter, which the other one sees too."""
    if not any(importlib.metadata.distributions(name="pip")):
        raise CannotBuild(f"building {rival} needs pip in this environment: {sys.executable} -m ensurepip")
    options = ("--isolated", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed")
    command = [str(interpreter), "-P", "-m", "pip", "install", "--disable-pip-version-check", *options, "."]
    try:
        done = subprocess.run(
            command,
            cwd=project,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotBuild(f"building {rival} took longer than {BUILD_TIMEOUT_S:g} s") from error
    if done.returncode:
        raise CannotBuild(
            f"{rival} cannot be installed beside this commit; the build's last lines:\n"
            f"{_last_lines(done.stdout)}"
        )


def _project(here: Path, tree: Path) -> Path | None:
    """The folder to install: the nearest project above ``here``, where this interpreter has it too."""
    for folder in (here, *here.parents):
        if not folder.is_relative_to(tree):
            return None
        named = _named(folder)
        if named is not None:
            return folder if named == "" or _is_installed(named) else None
    return None


def _named(folder: Path) -> str | None:
    """The name of the project in ``folder``: empty where only building it would tell, ``None`` if none is."""
    file = folder / "pyproject.toml"
    table = tomllib.loads(file.read_text()) if file.exists() else {}
    if "name" in table.get("project", {}):
        return str(table["project"]["name"])
    scripted = "build-system" in table or (folder / "setup.py").exists()
    return "" if scripted else None


def _is_installed(name: str) -> bool:
    wanted = re.sub(r"[-_.]+", "-", name).lower()
    found = (one.metadata["Name"] or "" for one in importlib.metadata.distributions())
    return any(re.sub(r"[-_.]+", "-", each).lower() == wanted for each in found)


def _site_folders() -> list[str]:
    """Where packages of the current interpreter lie, in the order in which they are searched."""
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    known = [one for one in (*user, *site.getsitepackages()) if Path(one).is_dir()]
    return sorted(known, key=lambda one: sys.path.index(one) if one in sys.path else len(sys.path))


def _installed(root: Path) -> tuple[Path, ...]:
    """Parts of the user's tree that are no part of the commit: an environment that lies in it."""
    folders = {Path(one).resolve() for one in (sys.prefix, sys.base_prefix, *_site_folders())}
    return tuple(sorted(one for one in folders if one != root and one.is_relative_to(root)))


def _root(here: Path) -> Path:
    try:
        found = _git(here, "rev-parse", "--show-toplevel")
    except FileNotFoundError as error:
        raise UsageError("--against needs git, which is not installed") from error
    if found.returncode:
        raise UsageError(f"--against needs a git repository, and {here} is in none")
    return Path(found.stdout.strip()).resolve()


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Without the variables of a git that called us, as a hook does, and without hooks of its own."""
    return subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", *words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        capture_output=True,
        text=True,
        check=False,
    )


def _last_lines(text: str) -> str:
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-_LAST_LINES:])
