"""The file in which tuned choices are kept, one per device name."""

from __future__ import annotations

import json
import os
import re
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = "LEANMARK_KERNELS_CACHE"
"""Environment variable: where tuned choices are kept; ``~/.cache/leanmark/kernels`` otherwise."""


def folder() -> Path:
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "leanmark" / "kernels"


@cache
def choices_of(device_name: str) -> Choices:
    """Those for ``device_name``, with the installed Triton."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", device_name).strip("-").lower()
    return Choices(folder() / f"{slug}-triton-{version('triton')}.json")


class Choices:
    """A mapping from problem to choice, read once and written whole after each addition."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = read(path)

    def get(self, key: str) -> str | None:
        entry = self.known.get(key)
        return None if entry is None else str(entry["choice"])

    def put(self, key: str, choice: str, milliseconds: float) -> None:
        """Remember ``choice``, keeping what other processes wrote in the meantime."""
        self.known = {**read(self.path), **self.known, key: {"choice": choice, "ms": milliseconds}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self.known, indent=1, sort_keys=True))
            temporary.replace(self.path)
        except OSError as error:
            warnings.warn(
                f"the tuned choice is lost when this process ends, since {self.path} cannot be written "
                f"({error}). Set {FOLDER} to a folder that can.",
                stacklevel=2,
            )


def read(path: Path) -> dict[str, dict[str, Any]]:
    """What ``path`` holds; nothing where it does not exist, or, with a warning, where it makes no sense."""
    if not path.exists():
        return {}
    try:
        known = json.loads(path.read_text())
        if isinstance(known, dict) and all(isinstance(e, dict) and "choice" in e for e in known.values()):
            return known
        problem = "it does not hold tuned choices"
    except (OSError, ValueError) as error:
        problem = str(error)
    warnings.warn(f"{path} is ignored and will be replaced: {problem}", stacklevel=2)
    return {}
