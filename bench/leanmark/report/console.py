"""Where tables are printed: a terminal as it is, anything else as plain text that is wide enough."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich.console import Console

from leanmark.reading.table import Table
from leanmark.report import terminal

_PLAIN_WIDTH = 160
"""Files and pipes have no width; this one has room for every column."""


def console() -> Console:
    """Standard output. Colour follows the terminal and NO_COLOR."""
    return Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)


def rendered(tables: Sequence[Table], width: int, *, color: bool) -> str:
    """The tables as text, for output that somebody else writes."""
    out = io.StringIO()
    terminal.render(
        tables, Console(file=out, width=width, force_terminal=color, no_color=None if color else True)
    )
    return out.getvalue()
