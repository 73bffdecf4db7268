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


def test_the_table_is_that_of_the_record() -> None:
    """``UPDATE_GOLDEN=1`` rewrites it."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    named = TABLE.search(text)
    assert named is not None
    records = store.load(ROOT / named["path"])
    tables = tabulate.build([records], carbon.world_average())
    [table] = [one for one in tables if one.title.startswith(named["title"])]
    made = "\n".join(markdown.grid(table)) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        readme.write_text(text.replace(named["text"] + "<!-- end", made + "<!-- end"), encoding="utf-8")
    assert made in readme.read_text(encoding="utf-8")


def test_the_commands_it_names_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in re.findall(r"scripts/(\w+)", text):
        assert (ROOT / "scripts" / script).exists()
