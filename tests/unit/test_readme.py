"""The table in the README is what the tool makes of the record it names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from leanmark import store
from leanmark.reading import carbon, tabulate
from leanmark.report import markdown

ROOT = Path(__file__).parents[2]
TABLE = re.compile(
    r"<!-- table of (?P<path>\S+): (?P<title>.+?) -->\n(?P<text>.*?)<!-- end of table -->", re.DOTALL
)


def test_every_table_is_that_of_its_record() -> None:
    """``UPDATE_GOLDEN=1`` rewrites them."""
    readme = ROOT / "README.md"
    named = list(TABLE.finditer(readme.read_text(encoding="utf-8")))
    assert named
    for one in named:
        made = _made(ROOT / one["path"], one["title"])
        text = readme.read_text(encoding="utf-8")
        if os.environ.get("UPDATE_GOLDEN"):
            whole = (
                one[0].removesuffix(one["text"] + "<!-- end of table -->") + made + "<!-- end of table -->"
            )
            readme.write_text(text.replace(one[0], whole), encoding="utf-8")
        assert made in readme.read_text(encoding="utf-8")


def _made(path: Path, title: str) -> str:
    tables = tabulate.build([store.load(path)], carbon.world_average())
    [table] = [one for one in tables if one.title.startswith(title)]
    return "\n".join(markdown.grid(table.rows)) + "\n"


def test_the_commands_it_names_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in re.findall(r"scripts/(\w+)", text):
        assert (ROOT / "scripts" / script).exists()
