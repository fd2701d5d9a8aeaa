"""Tables as rows of text: on the terminal, narrowed to its columns, condensed."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import rich.table
from rich.console import Console
from rich.padding import Padding

from flows.report.figures import counted

MOST_ON_SIDE = 4  # rows; more than that are not turned on their side
LEAST_COLUMNS = 5  # of an overview, which 80 characters hold
LABELS = ("rule", "truly", "score")  # columns that name each line of a row of several lines
WITHOUT_FIGURE = ("n/a", "not available")
REASON = re.compile("(?:n/a|not available): (.*)")
MOST_NAMES = 4
WIDEST = 40  # characters of a cell's line; longer sentences are wrapped
INDENT = 2


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

    @property
    def widths(self) -> list[int]:
        """Characters that each column needs."""
        columns = zip(self.columns, *self.rows, strict=True)
        return [
            max(len(line) for text in column for line in text.split("\n")) for column in columns
        ]

    @property
    def label(self) -> int | None:
        """The place of the column that names each line of a row."""
        return next((place for place, name in enumerate(self.columns) if name in LABELS), None)

    def records(self) -> list[dict[str, str]]:
        """A dict per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def part(self, places: Sequence[int]) -> ReportTable:
        """The columns at `places`."""
        columns = tuple(self.columns[place] for place in places)
        rows = tuple(tuple(row[place] for place in places) for row in self.rows)
        return replace(self, columns=columns, rows=rows)

    def fitting(self, width: int, at_least: int = LEAST_COLUMNS) -> ReportTable:
        """The first columns that `width` characters hold without lines between them, and
        `at_least` so many.
        """
        widths = self.widths
        count = at_least
        while count < len(widths) and sum(widths[: count + 1]) + count <= width:
            count += 1
        return self.part(range(min(count, len(widths))))

    def without(self, words: str) -> ReportTable:
        """The same table without `words` in its cells."""
        rows = tuple(tuple(text.replace(words, "") for text in row) for row in self.rows)
        return replace(self, rows=rows)

    def noted(self, *notes: str | None) -> ReportTable:
        """The same table with each note once behind its title, after a semicolon."""
        added = "".join(f"; {note}" for note in dict.fromkeys(notes) if note)
        return replace(self, title=self.title + added)


def print_table(console: Console, table: ReportTable) -> None:
    """Print a table; a short one that is too wide is turned on its side, a column for each row."""
    if table.title:
        print_title(console, table.title)
    width_with_lines = sum(table.widths) + 3 * len(table.columns) + 1
    if width_with_lines > console.width and len(table) <= MOST_ON_SIDE:
        grid = rich.table.Table(show_header=False)
        grid.add_column(no_wrap=True)
        for _ in table.rows:
            grid.add_column(overflow="fold")
        for name in table.columns:
            grid.add_row(name, *table[name])
    else:
        grid = rich.table.Table()
        for name in table.columns:
            grid.add_column(name, overflow="fold")
        for row in table.rows:
            grid.add_row(*row)

    grid.show_lines = _has_lines(table)
    console.print(grid)


def print_lines(console: Console, table: ReportTable) -> None:
    """Print a table without lines, a line for each row; the first column and the last one give way
    where the width does not hold them.
    """
    print_title(console, table.title)
    grid = _plain_grid()
    for place, name in enumerate(table.columns):
        grid.add_column(name, overflow="fold", no_wrap=0 < place < len(table.columns) - 1)
    for row in table.rows:
        grid.add_row(*row)
    console.print(grid)


def _plain_grid(show_header: bool = True) -> rich.table.Table:
    return rich.table.Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=show_header, header_style="bold"
    )


def print_title(console: Console, title: str) -> None:
    """Print a title as wide as the terminal, however narrow its table is."""
    _print_text(console, title, style="italic")


def _print_text(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def _has_lines(table: ReportTable) -> bool:
    return any("\n" in cell for row in table.rows for cell in row)


def condensed(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The same figures in fewer rows and columns, and the sentences about what is not repeated."""
    shorter, missing = _without_empty_lines(table)
    shorter, shared = _without_shared_columns(shorter)
    shorter, endings = _without_shared_endings(shorter)
    in_all = [f"In every row: {'; '.join([*endings, *shared])}."] if shared or endings else []
    return shorter, [*in_all, *missing]


def _without_empty_lines(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without rows that hold no figure; where lines have labels, without such lines. And
    a sentence for each reason that names them.
    """
    label = table.label
    missing = defaultdict(list)
    rows = []
    for short_name, (name, *cells) in zip(_short_names(table), table.rows, strict=True):
        lines: Sequence[Sequence[str]] = [cells]
        if label is not None:
            lines = list(zip_longest(*(cell.split("\n") for cell in cells), fillvalue=""))
        with_figures = []
        for line in lines:
            # Places count the column of names, which `line` is without.
            texts = [text for place, text in enumerate(line, 1) if place != label]
            if any(texts) and all(_is_no_figure(text) for text in texts):
                words = "" if label is None else line[label - 1].removesuffix(" *")
                reasons = [found[1] for text in texts if (found := REASON.search(_one_line(text)))]
                missing[words, reasons[0] if reasons else ""].append(short_name)
            else:
                with_figures.append(line)

        if with_figures:
            columns = ("\n".join(texts) for texts in zip(*with_figures, strict=True))
            rows.append((name, *columns))

    sentences = []
    for (words, reason), names in missing.items():
        listed = ", ".join(names[:MOST_NAMES])
        if len(names) > MOST_NAMES:
            listed += f" and {len(names) - MOST_NAMES} more"
        opening = f"Not available, {words}" if words else "Not available"
        sentences.append(f"{opening}: {listed}{f' ({reason})' if reason else ''}.")
    return replace(table, rows=tuple(rows)), sentences


def _is_no_figure(text: str) -> bool:
    return not text or text.lower().startswith(WITHOUT_FIGURE)


def _short_names(table: ReportTable) -> list[str]:
    """The first line of each name, or all of them where that line alone says not which row."""
    names = [row[0] for row in table.rows]
    first_lines = [name.partition("\n")[0] for name in names]
    is_clear = len(set(first_lines)) == len(names)
    return first_lines if is_clear else [_one_line(name) for name in names]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _without_shared_columns(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without columns that say the same in every row, and what they say."""
    others = []
    sentences = []
    for place, name in enumerate(table.names):
        cells = {row[place] for row in table.rows}
        if place == 0 or len(table) < 2 or len(cells) > 1 or place == table.label:
            others.append(place)
        elif cell := cells.pop():
            sentences.append(f"{name} {_one_line(cell)}")
    return table.part(others), sentences


def _without_shared_endings(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without last lines that are the same in every row of a column, and these lines."""
    if len(table) < 2:
        return table, []

    columns = [list(column) for column in zip(*table.rows, strict=True)]
    sentences = []
    for place, cells in enumerate(columns if table.label is None else columns[:1]):
        endings = {cell.rpartition("\n")[2] for cell in cells}
        if len(endings) == 1 and all("\n" in cell for cell in cells):
            sentences.append(f"{table.names[place]} {endings.pop()}" if place else endings.pop())
            columns[place] = [cell.rpartition("\n")[0] for cell in cells]

    return replace(table, rows=tuple(zip(*columns, strict=True))), sentences


def print_narrow(console: Console, table: ReportTable, most: int) -> None:
    """Print what the first `most` rows of a table say, in as many parts as the width needs, each
    with the first column again. A row whose cells have several lines has its name above them.
    """
    short, sentences = condensed(table)
    rows = tuple((name, *(_wrap(cell) for cell in cells)) for name, *cells in short.rows[:most])
    shown = replace(short, rows=rows)
    console.print()
    print_title(console, table.title)
    for sentence in sentences:
        _print_text(console, sentence)

    if len(shown.columns) > 1 and len(shown):
        first, *others = shown.widths
        # Every column has room beside the first one.
        fits = all(first + 1 + other <= console.width for other in others)
        names_above = _has_lines(shown) or not fits
        for places in _parts(shown, console.width, names_above):
            _print_part(console, shown, places, names_above)

    if (remaining_count := len(short) - len(shown)) > 0:
        remaining = counted(remaining_count, "more row")
        _print_text(console, f"and {remaining}: triage sql {table.query}")


def _wrap(cell: str) -> str:
    lines = [textwrap.wrap(line, WIDEST, break_on_hyphens=False) for line in cell.split("\n")]
    return "\n".join(part for parts in lines for part in parts or [""])


def _parts(table: ReportTable, width: int, names_above: bool) -> list[list[int]]:
    """The places of the columns of each part; a column that names lines is in all of them."""
    widths = table.widths
    repeated = [] if table.label is None else [table.label]
    # Each column counts the space before it, which the first one below an indent does not have.
    base_width = INDENT - 1 if names_above else widths[0]
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
    """Print some columns: beside the names of the rows, or below each of these."""
    part = table.part(places if names_above else [0, *places])

    def show(rows: Sequence[Sequence[str]], show_header: bool) -> None:
        grid = _plain_grid(show_header)
        for name, width in zip(part.columns, part.widths, strict=True):
            grid.add_column(name, width=width, overflow="fold")
        for row in rows:
            grid.add_row(*row)
        console.print(Padding(grid, (0, 0, 0, INDENT if names_above else 0), expand=False))

    if not names_above:
        show(part.rows, show_header=True)
        return

    _print_text(console, table.columns[0], style="bold")
    show([], show_header=True)
    for name, row in zip(table[table.columns[0]], part.rows, strict=True):
        _print_text(console, name)
        show([row], show_header=False)
