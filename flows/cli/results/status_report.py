"""What `triage status` prints: experiments here and in the warehouse, with their results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from flows.cli.results.status_lines import Line, status_lines
from flows.cli.terminal import print_line
from flows.report.figures import counted
from tasks.runtime.home import home

COLUMNS = ("experiment", "state", "ED recall on test", "gates")
NARROW = ("experiment, state", "ED recall on test", "gates")
OTHER_COLUMNS = 34  # characters that these need beside the names, where the terminal is narrow
NOTHING = "Nothing has run yet. Next: triage sweep demo"


def print_status(console: Console, show_all: bool = False) -> None:
    """Print a line per experiment; random weights are marked.

    `show_all`: failed runs of earlier settings and trials of searches, too, which are left out
    otherwise.
    """
    lines = status_lines()
    if not lines:
        print_line(console, NOTHING)
        return

    console.print(status_table(lines, console.width, show_all))
    hidden = sum(line.superseded for line in lines)
    if hidden and not show_all:
        runs = counted(hidden, "failed run")
        print_line(console, f"{runs} of earlier settings not listed: triage status --all")

    trials = sum(line.searched for line in lines)
    if trials and not show_all:
        count = counted(trials, "trial")
        print_line(console, f'{count} of searches not listed: triage sql "FROM trial"')


def print_json(show_all: bool = False) -> None:
    """Print the lines as a JSON array on standard output."""
    lines = listed_lines(status_lines(), show_all)
    print(json.dumps([line.as_json() for line in lines], indent=2))


def status_table(lines: Sequence[Line], width: int, show_all: bool = False) -> Table:
    """The lines as a table for a terminal of `width` characters, which breaks no name."""
    visible_lines = listed_lines(lines, show_all)
    names = _names(visible_lines)
    named_lines = list(zip(visible_lines, names, strict=True))

    table = _table(COLUMNS, [line.cells(name) for line, name in named_lines])
    unbounded = Console(width=10_000)  # on which a table is as wide as it wants
    if Measurement.get(unbounded, unbounded.options, table).maximum <= width:
        return table

    longest = max(map(len, names), default=0)
    whole = longest + OTHER_COLUMNS <= width
    return _table(NARROW, [line.narrow_cells(name) for line, name in named_lines], whole)


def _table(columns: Sequence[str], rows: list[tuple[str, ...]], whole: bool = False) -> Table:
    title = f"Experiments in {home() / 'experiments'}"
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=whole and place == 0)
    for row in rows:
        table.add_row(*row)
    return table


def _names(lines: list[Line]) -> list[str]:
    """The cell of each line, which commands take; the training id where a cell is listed twice."""
    cells = Counter(line.cell_id for line in lines)
    return [line.cell_id if cells[line.cell_id] == 1 else line.name for line in lines]


def listed_lines(lines: Sequence[Line], show_all: bool) -> list[Line]:
    """The lines without failed runs of earlier settings and trials, unless `show_all`."""
    return [line for line in lines if show_all or not (line.superseded or line.searched)]
