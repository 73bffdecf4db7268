"""What a validation has found so far, one line for each contest: it can be stopped and taken up again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import leanmark
from leanmark.measuring import environment
from leanmark.store import machine_slug

Line = Mapping[str, Any]

RESULTS = Path(__file__).parents[2] / "results"


class Journal:
    """``<results>/<machine>/validation/<name>.jsonl``; the first line says what all others share."""

    def __init__(self, results: Path, name: str, **shared: object) -> None:
        here = environment.collect()
        self._header = {
            "leanmark": leanmark.__version__,
            "machine": here.machine,
            "software": here.software,
            **shared,
        }
        self.path = folder_here(results) / f"{name}.jsonl"
        self.lines = self._take_up()

    def append(self, line: Line) -> None:
        """Add ``line``; when this returns, it is written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            if not self.lines and not file.tell():
                file.write(json.dumps(self._header) + "\n")
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)

    def _take_up(self) -> list[Line]:
        """The lines of an earlier start. Half a line, left by a kill, is cut off."""
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_text().rpartition("\n")
        if not whole:
            self.path.unlink()
            return []
        self.path.write_text(whole + "\n")
        header, *lines = (json.loads(line) for line in whole.splitlines())
        if header != json.loads(json.dumps(self._header)):
            raise SystemExit(f"{self.path} was begun with other settings or software: move it away first")
        return list(lines)


def folder_here(results: Path) -> Path:
    """Where what is found on this machine is kept."""
    return results / machine_slug(environment.collect()) / "validation"


def load(path: Path) -> tuple[Line, list[Line]]:
    """The header and the lines of a journal."""
    header, *lines = (json.loads(line) for line in path.read_text().splitlines())
    return header, lines
