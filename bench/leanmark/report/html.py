"""One self-contained page: no script, no font and no image from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from leanmark.reading.table import Table
from leanmark.report import cells, to_target
from leanmark.report.columns import STEP
from leanmark.report.details import details, run_facts
from leanmark.report.notes import METHOD, legend, notes


def render(tables: Sequence[Table]) -> str:
    """``tables`` as HTML; everything that came from a record is escaped."""
    environment = Environment(
        loader=PackageLoader("leanmark.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    runs = list({table.run.id: table.run for table in tables}.values())
    return environment.get_template("page.html.jinja").render(
        tables=tables,
        step=STEP,
        to_target=to_target,
        runs=[(run, run_facts(run)) for run in runs],
        cells=cells,
        notes=notes,
        legend=legend(tables),
        details=details,
        method=METHOD,
    )
