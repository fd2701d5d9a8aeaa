"""Prints plans, status and comparisons to the terminal."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table

MOST_ON_SIDE = 4


def print_frame(console: Console, frame: pd.DataFrame, title: str | None = None) -> None:
    """A data frame as a table; one that is too wide is turned on its side, a column for each record."""
    cells = [[str(v) for v in row] for row in frame.itertuples(index=False)]
    columns = [str(c) for c in frame.columns]
    table = Table(
        title=title,
        title_justify="left",
        show_lines=any("\n" in text for row in cells for text in row),
    )
    if _total(_widths(frame)) > console.width and len(cells) <= MOST_ON_SIDE:
        table.add_column("", no_wrap=True)
        for _ in cells:
            table.add_column("", overflow="fold")
        for i, name in enumerate(columns):
            table.add_row(name, *(row[i] for row in cells))
    else:
        for name in columns:
            table.add_column(name, overflow="fold")
        for row in cells:
            table.add_row(*row)
    console.print(table)


def print_in_parts(console: Console, frame: pd.DataFrame, title: str) -> None:
    """A table of experiments; one that is too wide goes on in further tables, each with the first column again."""
    widths, part = _widths(frame), [0]
    console.print(title, style="italic", soft_wrap=True)
    for i in range(1, len(widths)):
        if len(part) > 1 and _total([widths[j] for j in (*part, i)]) > console.width:
            print_frame(console, frame.iloc[:, part])
            part = [0]
        part.append(i)
    print_frame(console, frame.iloc[:, part])


def _widths(frame: pd.DataFrame) -> list[int]:
    """Characters that each column needs."""
    return [
        max(_width(str(text)) for text in (name, *frame.iloc[:, i]))
        for i, name in enumerate(frame.columns)
    ]


def _total(widths: list[int]) -> int:
    return sum(widths) + 3 * len(widths) + 1


def _width(text: str) -> int:
    return max(len(line) for line in text.split("\n"))
