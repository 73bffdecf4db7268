import io
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from leanmark.reading import carbon, tabulate
from leanmark.reading.table import Table
from leanmark.record import Finding
from leanmark.report import cells, html, markdown, terminal

from . import synthetic

Tables = tuple[Table, ...]

GOLDEN = Path(__file__).parents[1] / "golden"
HOSTILE = "<script>alert(1)</script> [bold]x[/bold] | a*b"


@pytest.fixture(scope="module")
def tables() -> Tables:
    return tabulate.build([synthetic.records()], carbon.world_average())


@pytest.fixture(scope="module")
def hostile() -> Tables:
    """Tables in which everything a user or a library may write looks like markup."""
    records = synthetic.records()
    found = [
        replace(one, reason=HOSTILE)
        if one.reason
        else replace(one, findings=(Finding(code="x", message=HOSTILE),))
        for one in records.measurements
    ]
    run = replace(records.run, command=(HOSTILE,), commit=HOSTILE)
    return tabulate.build([replace(records, run=run, measurements=tuple(found))], carbon.world_average())


def printed(tables: Tables, width: int, **options: Any) -> str:
    stream = io.StringIO()
    terminal.render(tables, Console(file=stream, width=width, **options))
    return stream.getvalue()


def test_markdown_is_the_golden_file(tables: Tables) -> None:
    """``UPDATE_GOLDEN=1`` rewrites it; read the difference before committing."""
    path = GOLDEN / "report.md"
    text = markdown.render(tables)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_what_is_true_of_all_that_is_compared_is_said_once() -> None:
    compared = ["prune · eager", "bf16 · eager", "int8 · onnxruntime", "fp32 · onnxruntime"]
    pairs = [("disturbed", name) for name in compared]
    assert list(cells.gathered(pairs, compared)) == ["all that is compared: disturbed"]
    assert list(cells.gathered(pairs[1:], compared)) == [f"{', '.join(compared[1:])}: disturbed"]
    assert list(cells.gathered(pairs)) == [f"{', '.join(compared)}: disturbed"]


def test_every_markdown_row_has_every_column(tables: Tables) -> None:
    rows = [line for line in markdown.render(tables).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {11}


def test_markdown_escapes_what_people_wrote(hostile: Tables) -> None:
    text = markdown.render(hostile)
    assert "<script>" not in text
    assert r"\<script\>alert(1)\</script\> \[bold\]x\[/bold\] \| a\*b" in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(tables: Tables, width: int) -> None:
    text = printed(tables, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    for number in ("188 µs", "5.32 k/s", "0.55×", "[0.54, 0.55]", "~2.20 mJ", "~290 ng", "[−11.2, −5.6]"):
        assert number in text


def test_a_wide_terminal_shows_a_row_on_a_line(tables: Tables) -> None:
    line = next(line for line in printed(tables, 160).splitlines() if "distill" in line)
    assert line.split("  ")[0].strip() == "distill"
    for part in ("0.31× [0.30, 0.31]", "0.31×‡", "88.4 % (−8.4) [−11.2, −5.6]", "better · accuracy worse"):
        assert part in line


def test_output_that_is_no_terminal_has_no_codes(tables: Tables) -> None:
    assert "\x1b" not in printed(tables, 100)


def test_no_color_is_respected(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9]")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour.search(printed(tables, 100, force_terminal=True, color_system="standard"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colour.search(printed(tables, 100, force_terminal=True, color_system="standard"))


def test_markup_in_a_reason_is_printed_as_it_is(hostile: Tables) -> None:
    assert f"int8 · eager: skipped: {HOSTILE}" in printed(hostile, 160)


@pytest.mark.parametrize(
    "note",
    [
        "int8 · eager: skipped: int8 runs in onnxruntime only",
        "bf16 · onnxruntime: invalid: no operator computed in bfloat16 [0 of 8]",
        "energy not measured: skipped: the time budget ended",
        "1 of 2 processes were still warming up when their time ended",
        "fp32 · onnxruntime is compared to fp32 · eager: a backend switch, no technique.",
        "Across backends, memory also differs by the libraries that one loads only with a model.",
        "the interval holds for the 2 processes that ran. Its margin is widened by 4.6%",
        "~ is an estimate by a model of power; no sensor was read.",
        "No energy ratio: not measured: an estimate derived from time adds nothing to the latency ratio.",
        "CO2e is energy times 475 gCO2e/kWh (world average, 2018;",
        "which stands in until --zone is given",
    ],
)
def test_the_footnotes_say_what_a_reader_must_know(tables: Tables, note: str) -> None:
    assert note in printed(tables, 250)


def test_rows_that_lack_numbers_for_one_reason_share_a_line() -> None:
    records = synthetic.records()
    late = tuple(
        replace(one, status="skipped", reason="no time was left", series=())
        if one.pass_name == "latency" and one.case.phase == "training"
        else one
        for one in records.measurements
    )
    text = printed(tabulate.build([replace(records, measurements=late)], None), 250)
    assert "fp32 · eager, bf16 · eager, prune(ratio=0.5) · eager: skipped: no time was left" in text
    assert text.count("no time was left") == 1


def test_a_verdict_that_is_the_only_one_needs_no_family() -> None:
    records = synthetic.records()

    def said(*techniques: str) -> str:
        few = tuple(one for one in records.measurements if one.case.technique in ("fp32", *techniques))
        few = tuple(one for one in few if (one.case.backend, one.case.phase) == ("eager", "inference"))
        return printed(tabulate.build([replace(records, measurements=few)], None), 250)

    assert "2 latencies were compared and 2 called better or worse" in said("distill", "prune(ratio=0.5)")
    assert "compared and" not in said("distill")


def test_a_stated_intensity_is_no_stand_in() -> None:
    text = printed(tabulate.build([synthetic.records()], carbon.for_zone("FRA")), 250)
    assert "France (FRA)" in text
    assert "until --zone" not in text


def test_nothing_measured_is_said() -> None:
    assert printed((), 80) == "Nothing was measured.\n"
    assert "Nothing was measured." in html.render(())


class Page(HTMLParser):
    """Collects what a page refers to and how its tables are built."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links, self.tags, self.scopes = list[str | None](), list[str](), list[str | None]()
        self.captions = self.tables = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        self.captions += tag == "caption"
        self.tables += tag == "table"
        if tag == "th":
            self.scopes.append(attributes.get("scope"))


def test_the_page_needs_nothing_from_anywhere(tables: Tables) -> None:
    text = html.render(tables)
    page = Page(text)
    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)


def test_the_tables_of_the_page_are_accessible(tables: Tables) -> None:
    page = Page(html.render(tables))
    assert page.captions == page.tables == 2 + 4
    assert set(page.scopes) == {"col", "row"}


def test_the_page_is_light_and_dark(tables: Tables) -> None:
    assert "prefers-color-scheme: dark" in html.render(tables)


def test_the_page_escapes_what_people_wrote(hostile: Tables) -> None:
    text = html.render(hostile)
    assert "script" not in Page(text).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt; [bold]x[/bold] | a*b" in text


def test_the_page_holds_environment_method_and_every_figure(tables: Tables) -> None:
    text = html.render(tables)
    for part in (
        "AMD EPYC 9R14",
        "not installed",
        "could not be read",
        "How it was measured",
        "0.55× [0.54, 0.55] of fp32 · eager; better; margin 2.0%",
        "660 k (0.55×)",
        "2 gained, 5 lost",
        "onnxruntime, backend switch",
    ):
        assert part in text
