"""Writes what the validations found on this machine into results/README.md, between its two marks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import journal
import tables

BEGIN, END = "<!-- validation: written by scripts/validate/readme.py -->", "<!-- end of validation -->"

SECTIONS: Mapping[str, tuple[str, Callable[..., Iterator[str]]]] = {
    "false_alarms.jsonl": ("False alarms", tables.false_alarms),
    "power.jsonl": ("Power", tables.power),
    "agreement.json": ("Agreement with other instruments", tables.agreement),
    "overhead.json": ("Overhead", tables.overhead),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=journal.RESULTS)
    results = parser.parse_args().results
    folder, page = journal.folder_here(results), results / "README.md"
    if not found(folder):  # or the tables of another machine would be replaced by none
        sys.exit(
            f"{folder} has none of {', '.join(SECTIONS)}: the other scripts of scripts/validate write them"
        )
    text = page.read_text() if page.exists() else "# Records\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    section = "\n".join([BEGIN, *sections(folder), END])
    page.write_text(f"{before.rstrip()}\n\n{section}\n{after.lstrip()}")
    print(f"{page}: {', '.join(sorted(file.name for file in found(folder)))}")


def sections(folder: Path) -> Iterator[str]:
    """Markdown lines: a table for each file that is there."""
    yield "## Validation"
    for file in found(folder):
        title, render = SECTIONS[file.name]
        content = journal.load(file)[1] if file.suffix == ".jsonl" else json.loads(file.read_text())
        yield from (
            "",
            f"### {title}",
            "",
            f"`scripts/validate/{file.stem}.py` on {folder.parent.name}; all figures are in "
            f"[`{file.name}`]({folder.parent.name}/{folder.name}/{file.name}).",
            "",
            *render(content),
        )


def found(folder: Path) -> list[Path]:
    return [folder / name for name in SECTIONS if (folder / name).exists()]


if __name__ == "__main__":
    main()
