"""The Markdown summary and the HTML page of a results file, written beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leanmark import store
from leanmark.errors import UnwritableResults
from leanmark.intensity import Intensity
from leanmark.reading import carbon, tabulate
from leanmark.report import html, markdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    markdown: Path
    html: Path


def publish(path: Path, grid: Intensity | None) -> Pages:
    """Write both pages of the records at ``path``, replacing older ones.

    Raises:
        RecordError: the records cannot be read, or the pages cannot be written.
    """
    records = store.load(path)
    tables = tabulate.build([records], carbon.of(records.run, grid))
    pages = Pages(markdown=path.with_suffix(".md"), html=path.with_suffix(".html"))
    write(pages.markdown, markdown.render(tables))
    write(pages.html, html.render(tables))
    return pages


def write(page: Path, text: str) -> None:
    """All of it or nothing: a full disk leaves the older page as it is.

    Raises:
        UnwritableResults: the message says why.
    """
    part = page.with_name(f".{page.name}.part")
    try:
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(page)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UnwritableResults(f"cannot write {page}: {error.strerror}") from error
