"""Tables on a terminal that is narrower than they are: a line a row, and the other columns below."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from rich.console import Console

from flows.report.condensed import condensed, label_column
from flows.report.figures import counted
from flows.report.table import ReportTable, print_title

WIDEST = 40  # characters of a cell's line; longer sentences are wrapped
INDENT = "  "


def print_narrow(console: Console, table: ReportTable, most: int) -> None:
    """Print what the first `most` rows of a table say, in as many parts as the width needs, each
    with the first column again. A row whose cells have several lines has its name above them.
    """
    short = condensed(table)
    shown = _wrapped(replace(short.table, rows=short.table.rows[:most]))
    console.print()
    print_title(console, table.title)
    for sentence in short.sentences:
        _print_text(console, sentence)

    if len(shown.columns) > 1 and len(shown):
        names_above = _has_lines(shown) or not _fits_beside_names(shown, console.width)
        for places in _parts(shown, console.width, names_above):
            _print_part(console, shown, places, names_above)

    if (remaining_count := len(short.table) - len(shown)) > 0:
        rows = counted(remaining_count, "more row")
        _print_text(console, f"and {rows}: triage sql {table.query}")


def _wrapped(table: ReportTable) -> ReportTable:
    rows = tuple((name, *(_wrap(cell) for cell in cells)) for name, *cells in table.rows)
    return replace(table, rows=rows)


def _wrap(cell: str) -> str:
    lines = [textwrap.wrap(line, WIDEST, break_on_hyphens=False) for line in cell.split("\n")]
    return "\n".join(part for parts in lines for part in parts or [""])


def _has_lines(table: ReportTable) -> bool:
    return any("\n" in cell for row in table.rows for cell in row)


def _fits_beside_names(table: ReportTable, width: int) -> bool:
    """Whether every column has room beside the first one."""
    first, *others = _widths(table)
    return all(first + 1 + other <= width for other in others)


def _parts(table: ReportTable, width: int, names_above: bool) -> list[list[int]]:
    """The places of the columns of each part; a column that names lines is in all of them."""
    widths = _widths(table)
    label = label_column(table)
    repeated = [] if label is None else [label]
    # Each column counts the space before it, which the first one below an indent does not have.
    base_width = len(INDENT) - 1 if names_above else widths[0]
    base_width += sum(widths[place] + 1 for place in repeated)

    parts: list[list[int]] = []
    # Wider than the terminal, so that the first column opens a part.
    used = width + 1
    for place in range(1, len(widths)):
        if place in repeated:
            continue
        if used + 1 + widths[place] > width:
            parts.append(list(repeated))
            used = base_width
        parts[-1].append(place)
        used += 1 + widths[place]
    return parts


def _print_part(
    console: Console, table: ReportTable, places: Sequence[int], names_above: bool
) -> None:
    widths = _widths(table)
    if names_above:
        _print_text(console, table.columns[0], style="bold")
        for line in _level([table.columns[place] for place in places], at_foot=True):
            _print_cells(console, line, [widths[place] for place in places], INDENT, "bold")
        for row in table.rows:
            _print_text(console, row[0])
            for line in _level([row[place] for place in places]):
                _print_cells(console, line, [widths[place] for place in places], INDENT)
        return

    all_places = [0, *places]
    of_part = [widths[place] for place in all_places]
    for line in _level([table.columns[place] for place in all_places], at_foot=True):
        _print_cells(console, line, of_part, style="bold")
    for row in table.rows:
        _print_cells(console, [row[place] for place in all_places], of_part)


def _level(cells: Sequence[str], at_foot: bool = False) -> list[tuple[str, ...]]:
    """The lines of cells beside each other; shorter ones are filled up, at their head or foot."""
    split_cells = [cell.split("\n") for cell in cells]
    if not at_foot:
        return list(zip_longest(*split_cells, fillvalue=""))

    upward = zip_longest(*(reversed(lines) for lines in split_cells), fillvalue="")
    return list(upward)[::-1]


def _print_cells(
    console: Console,
    cells: Sequence[str],
    widths: Sequence[int],
    indent: str = "",
    style: str | None = None,
) -> None:
    texts = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    console.print((indent + " ".join(texts)).rstrip(), style=style, soft_wrap=True)


def _print_text(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def _widths(table: ReportTable) -> list[int]:
    """Characters that each column needs."""
    columns = zip(table.columns, *table.rows, strict=True)
    return [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
