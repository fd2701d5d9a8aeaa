"""Tables of text, and how they are printed to a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import rich.table
from rich.console import Console

MOST_ON_SIDE = 4  # rows; more than that are not turned on their side
LEAST_COLUMNS = 5  # of an overview, which 80 characters hold


@dataclass(frozen=True)
class ReportTable:
    """A titled table: a row of texts per record; a cell may have several lines."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    query: str = ""  # what `triage sql` takes to print every row

    @classmethod
    def of(cls, title: str, records: Sequence[dict[str, str]], query: str = "") -> ReportTable:
        """A table of records that all have the same keys."""
        columns = tuple(records[0]) if records else ()
        rows = tuple(tuple(record.values()) for record in records)
        return cls(title, columns, rows, query)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> list[str]:
        """The cells of a column, row by row."""
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The columns, each on one line."""
        return [name.replace("-\n", "").replace("\n", " ") for name in self.columns]

    def records(self) -> list[dict[str, str]]:
        """A dict per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def part(self, places: Sequence[int]) -> ReportTable:
        """The columns at `places`, without a title."""
        return ReportTable(
            "",
            tuple(self.columns[i] for i in places),
            tuple(tuple(row[i] for i in places) for row in self.rows),
        )

    def fitting(self, width: int, at_least: int = LEAST_COLUMNS) -> ReportTable:
        """The first columns that `width` characters hold without lines between them, and
        `at_least` so many.
        """
        widths = _widths(self)
        count = at_least
        while count < len(widths) and sum(widths[: count + 1]) + count <= width:
            count += 1
        return replace(self.part(range(min(count, len(widths)))), title=self.title)

    def without(self, words: str) -> ReportTable:
        """The same table without `words` in its cells."""
        rows = tuple(tuple(text.replace(words, "") for text in row) for row in self.rows)
        return replace(self, rows=rows)

    def with_note(self, note: str) -> ReportTable:
        """The same table with `note` behind its title."""
        return replace(self, title=self.title + note)

    def with_notes(self, notes: Iterable[str | None]) -> ReportTable:
        """The same table with each note once behind its title, after a semicolon."""
        return self.with_note("".join(f"; {note}" for note in dict.fromkeys(notes) if note))


def print_table(console: Console, table: ReportTable) -> None:
    """Print a table; a short one that is too wide is turned on its side, a column for each row."""
    on_side = _total(_widths(table)) > console.width and len(table) <= MOST_ON_SIDE
    grid = _sideways(table) if on_side else _upright(table)
    if table.title:
        print_title(console, table.title)
    grid.show_lines = any("\n" in text for row in table.rows for text in row)
    console.print(grid)


def _upright(table: ReportTable) -> rich.table.Table:
    grid = rich.table.Table()
    for name in table.columns:
        grid.add_column(name, overflow="fold")
    for row in table.rows:
        grid.add_row(*row)
    return grid


def _sideways(table: ReportTable) -> rich.table.Table:
    grid = rich.table.Table(show_header=False)
    grid.add_column(no_wrap=True)
    for _ in table.rows:
        grid.add_column(overflow="fold")
    for name in table.columns:
        grid.add_row(name, *table[name])
    return grid


def print_lines(console: Console, table: ReportTable) -> None:
    """Print a table without lines, a line for each row; the first column and the last one give way
    where the width does not hold them.
    """
    print_title(console, table.title)
    grid = rich.table.Table(
        box=None, pad_edge=False, collapse_padding=True, padding=(0, 1), header_style="bold"
    )
    for place, name in enumerate(table.columns):
        grid.add_column(name, overflow="fold", no_wrap=0 < place < len(table.columns) - 1)
    for row in table.rows:
        grid.add_row(*row)

    console.print(grid)


def print_title(console: Console, title: str) -> None:
    """Print a title as wide as the terminal, however narrow its table is."""
    console.print(title, style="italic", soft_wrap=not console.is_terminal)


def _widths(table: ReportTable) -> list[int]:
    """Characters that each column needs."""
    return [max(_width(text) for text in (name, *table[name])) for name in table.columns]


def _total(widths: list[int]) -> int:
    """Characters of a table with columns of these widths, its lines included."""
    return sum(widths) + 3 * len(widths) + 1


def _width(text: str) -> int:
    return max(len(line) for line in text.split("\n"))
