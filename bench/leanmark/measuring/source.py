"""Which code a worker runs: that of the user's own tree, or another commit's."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leanmark.rival import Rival


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An interpreter and the folder it is started in; ``None`` is the current folder.

    ``variables`` are added to the environment. ``rival`` names another commit; nothing of ``foreign``, the
    tree it must not be mistaken for, may be imported, except for what lies in ``installed``.
    """

    interpreter: str = sys.executable
    folder: Path | None = None
    variables: tuple[tuple[str, str], ...] = ()
    rival: Rival | None = None
    foreign: Path | None = None
    installed: tuple[Path, ...] = ()

    @property
    def commit(self) -> str | None:
        """That of the cases which run this code."""
        return self.rival.commit if self.rival else None

    def environment(self, own: Mapping[str, str]) -> dict[str, str]:
        return {**own, **dict(self.variables)}


HERE = Source()
"""The code that is running now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Paths of the tree ``root`` as they are in its copy ``tree``; what is ``installed`` in it stays."""

    root: Path
    tree: Path
    installed: tuple[Path, ...]

    def path(self, path: Path) -> Path:
        real = path.resolve()
        if not real.is_relative_to(self.root) or any(real.is_relative_to(one) for one in self.installed):
            return path
        return self.tree / real.relative_to(self.root)

    def search_path(self, text: str) -> str:
        """A ``PYTHONPATH``; an empty entry is the current folder."""
        return os.pathsep.join(str(self.path(Path(one or "."))) for one in text.split(os.pathsep))
