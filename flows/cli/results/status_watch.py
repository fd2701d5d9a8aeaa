"""`triage status --watch`: the table again and again, until it is interrupted."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import rich.live
from rich.console import Console, Group, RenderableType
from rich.text import Text

from flows.cli.results.status_lines import Line, status_lines
from flows.cli.results.status_report import NOTHING, listed_lines, status_table
from tasks.runtime.errors import BadInput

WATCH_SECONDS = 2.0
LINES_BELOW = 2  # rows left out, prompt
MOST_LINES = 4  # of a row, so that leaving out one for each four leaves out no row too many


def watch_status(console: Console, show_all: bool, as_json: bool) -> None:
    """Draw the table of `triage status` every WATCH_SECONDS until Ctrl-C.

    Raises BadInput without a terminal and with --json.
    """
    if as_json or not console.is_terminal:
        raise BadInput(
            "--watch draws a table on a terminal; in a script call triage status --json again and "
            "again."
        )

    with contextlib.suppress(KeyboardInterrupt), rich.live.Live(console=console) as display:
        while True:
            display.update(watched_table(status_lines(), console, show_all), refresh=True)
            time.sleep(WATCH_SECONDS)


def watched_table(
    lines: Sequence[Line], console: Console, show_all: bool = False
) -> RenderableType:
    """The table of the experiments that the terminal has lines for, those that run before others."""
    if not lines:
        return NOTHING

    listed = listed_lines(lines, show_all)
    by_importance = sorted(range(len(listed)), key=lambda place: listed[place].reported is None)
    room = console.height - LINES_BELOW
    count = len(listed)
    while True:
        visible_lines = [listed[place] for place in sorted(by_importance[:count])]
        table = status_table(visible_lines, console.width, show_all=True)
        excess = len(console.render_lines(table)) - room
        if excess <= 0 or count <= 1:
            break
        count -= max(excess // MOST_LINES, 1)

    hidden = len(listed) - count
    return Group(table, Text(f"and {hidden} more: triage status", "dim")) if hidden else table
