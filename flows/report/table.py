"""Tables as rows of text: on the terminal, narrowed to its columns, condensed."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import rich.table
from rich.console import Console

from flows.report.figures import counted

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


LABELS = ("rule", "truly", "score")  # columns that name each line of a row of several lines
WITHOUT_FIGURE = ("n/a", "not available")
MOST_NAMES = 4

Missing = dict[tuple[str, str], list[str]]  # names of rows, by label of the line and reason


@dataclass(frozen=True)
class Condensed:
    """A table, and the sentences about what it does not repeat."""

    table: ReportTable
    sentences: tuple[str, ...]


def condensed(table: ReportTable) -> Condensed:
    """The same figures in fewer rows and columns."""
    shorter, missing = _without_empty_lines(table)
    shorter, shared = _without_shared_columns(shorter)
    shorter, endings = _without_shared_endings(shorter)
    sentences = [_missing_sentence(*key, names) for key, names in missing.items()]
    if shared or endings:
        sentences.insert(0, f"In every row: {'; '.join([*endings, *shared])}.")

    return Condensed(shorter, tuple(sentences))


def label_column(table: ReportTable) -> int | None:
    """The place of the column that names each line of a row."""
    return next((place for place, name in enumerate(table.columns) if name in LABELS), None)


def _without_empty_lines(table: ReportTable) -> tuple[ReportTable, Missing]:
    """The table without rows that hold no figure; where lines have labels, without such lines."""
    label = label_column(table)
    names = _short_names(table)
    missing: Missing = defaultdict(list)
    rows = []
    for short_name, (name, *cells) in zip(names, table.rows, strict=True):
        lines: Iterable[Sequence[str]] = _lines(cells) if label is not None else [cells]
        with_figures = []
        for line in lines:
            # Places count the column of names, which `line` is without.
            texts = [text for place, text in enumerate(line, 1) if place != label]
            if any(texts) and _has_no_figure(texts):
                words = line[label - 1].removesuffix(" *") if label is not None else ""
                missing[words, _reason(texts)].append(short_name)
            else:
                with_figures.append(line)

        if with_figures:
            columns = ("\n".join(texts) for texts in zip(*with_figures, strict=True))
            rows.append((name, *columns))

    return replace(table, rows=tuple(rows)), missing


def _short_names(table: ReportTable) -> list[str]:
    """The first line of each name, or all of them where that line alone says not which row."""
    names = [row[0] for row in table.rows]
    first_lines = [name.partition("\n")[0] for name in names]
    return (
        first_lines if len(set(first_lines)) == len(names) else [_one_line(name) for name in names]
    )


def _lines(cells: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """The lines of a row, each with the text of every cell."""
    return zip_longest(*(cell.split("\n") for cell in cells), fillvalue="")


def _has_no_figure(texts: Sequence[str]) -> bool:
    return all(not text or text.lower().startswith(WITHOUT_FIGURE) for text in texts)


def _reason(texts: Sequence[str]) -> str:
    """`no cost matrix` of `n/a: no cost matrix`; the first that is given."""
    reasons = (_one_line(text).partition("n/a: ")[2] or _after_words(text) for text in texts)
    return next(filter(None, reasons), "")


def _after_words(text: str) -> str:
    return _one_line(text).partition("not available: ")[2]


def _missing_sentence(label: str, reason: str, names: Sequence[str]) -> str:
    listed = ", ".join(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        listed += f" and {len(names) - MOST_NAMES} more"
    opening = f"Not available, {label}" if label else "Not available"
    return f"{opening}: {listed}{f' ({reason})' if reason else ''}."


def _without_shared_columns(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without columns that say the same in every row, and what they say."""
    shared = [
        place
        for place in range(1, len(table.columns))
        if len(table) > 1
        and table.columns[place] not in LABELS
        and len({row[place] for row in table.rows}) == 1
    ]
    others = [place for place in range(len(table.columns)) if place not in shared]
    sentences = [
        f"{table.names[place]} {_one_line(table.rows[0][place])}"
        for place in shared
        if table.rows[0][place]
    ]
    return replace(table.part(others), title=table.title, query=table.query), sentences


def _without_shared_endings(table: ReportTable) -> tuple[ReportTable, list[str]]:
    """The table without last lines that are the same in every row of a column, and these lines."""
    if len(table) < 2:
        return table, []

    with_labels = label_column(table) is not None
    columns = [list(column) for column in zip(*table.rows, strict=True)]
    sentences = []
    for place, cells in enumerate(columns[:1] if with_labels else columns):
        endings = {cell.rpartition("\n")[2] for cell in cells}
        if len(endings) == 1 and all("\n" in cell for cell in cells):
            sentences.append(f"{table.names[place]} {endings.pop()}" if place else endings.pop())
            columns[place] = [cell.rpartition("\n")[0] for cell in cells]

    return replace(table, rows=tuple(zip(*columns, strict=True))), sentences


def _one_line(text: str) -> str:
    return " ".join(text.split())


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
