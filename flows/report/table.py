"""What a report is made of: tables and charts as data, sections that hold them, and tables on the
terminal and as Markdown. charts.py draws charts; page.py makes HTML of both.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any

import rich.table
from rich.console import Console

from flows.report.figures import counted
from flows.report.rows import Interval

Record = dict[str, str]
Mark = dict[str, Any]

REASON = re.compile(r"(?:n/a|NOT AVAILABLE): (.+)", re.IGNORECASE | re.DOTALL)
MOST_IN_ALT = 4  # figures that an alternative text repeats
WORDS = tomllib.loads((files("flows.report") / "words.toml").read_text(encoding="utf-8"))
TITLES: dict[str, str] = WORDS.pop("titles")  # of tables; the rest are the words of each section


@dataclass(frozen=True)
class Table:
    """A titled table: a text for each column of each record, all of which have the same columns.

    `query`: what `triage sql` takes to print every row; `notes`: sentences about all of it; `names`:
    how many columns name a row.
    """

    title: str
    records: Sequence[Record]
    query: str = ""
    notes: tuple[str, ...] = ()
    names: int = 1

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, column: str) -> list[str]:
        """The cells of a column, row by row."""
        return [record[column] for record in self.records]

    @property
    def heading(self) -> str:
        """The title and the notes in one line."""
        return "; ".join(filter(None, (self.title, *self.notes)))

    @property
    def columns(self) -> list[str]:
        return list(self.records[0]) if self.records else []

    def noted(self, *notes: str | None) -> Table:
        """The same table with further notes, each once."""
        return replace(self, notes=tuple(dict.fromkeys([*self.notes, *filter(None, notes)])))

    def with_reasons_once(self) -> Table:
        """The same table with `n/a` for `n/a: why`; each reason is a note."""
        columns_of: dict[str, dict[str, None]] = {}
        records = []
        for record in self.records:
            short = {}
            for column, text in record.items():
                if match := REASON.fullmatch(text):
                    columns_of.setdefault(one_line(match[1]), {})[one_line(column)] = None
                short[column] = "n/a" if match else text
            records.append(short)
        notes = [f"n/a ({', '.join(columns)}): {reason}" for reason, columns in columns_of.items()]
        return replace(self, records=records).noted(*notes)


@dataclass(frozen=True)
class Chart:
    """A chart as data: its `kind` is a function of charts.py, which takes `marks` and `options`."""

    kind: str
    title: str
    marks: Sequence[Mark]
    options: dict[str, Any] = field(default_factory=dict)

    def alt(self, heading: str) -> str:
        """What is read in place of the chart: the first few figures, evenly over its series."""
        records = self.table().records
        some = records[:: max(1, len(records) // MOST_IN_ALT)][:MOST_IN_ALT]
        texts = [f"{record['mark']}: {record['figure']}" for record in some]
        title = f"{heading}, {self.title}" if self.title else heading
        return f"{title}: {'; '.join(texts)}; {counted(len(records), 'mark')} in all."

    def table(self) -> Table:
        """Every mark as a row, for those who read and do not look: its name, and its figures with
        their intervals.
        """
        records = []
        for mark in self.marks:
            parts = [mark.get(name) for name in ("label", "series", "kind")]
            if "decision" in mark:
                parts.append(f"decided {mark['decision']}")
            name = " ".join(dict.fromkeys(one_line(str(part)) for part in parts if part))
            places = [_place(mark, axis) for axis in ("cases", "y", "x") if axis in mark]
            records.append({"mark": name, "figure": " at ".join(places)})
        return Table(self.title, records)


def _place(mark: Mark, axis: str) -> str:
    ends = (mark[axis], mark.get(f"{axis}_low"), mark.get(f"{axis}_high"))
    value, *interval = (f"{end:.4g}" for end in ends if end is not None and end == end)
    return f"{value} [{', '.join(interval)}]" if interval else value


@dataclass
class Section:
    """A part of the report: charts, and tables with the rows behind them.

    `values` are what its words (words.toml) need; `findings` say how many do what; `commands` give
    more. Without a table its words for what is missing stand in place of all.
    """

    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)

    def draw(self, kind: str, title: str, marks: Sequence[Mark], **options: Any) -> None:
        """Add a chart; marks without a figure are left out, and a chart without marks too."""
        shown = [mark for mark in marks if all(mark.get(a, 0) is not None for a in ("x", "y"))]
        if shown:
            self.charts.append(Chart(kind, title, shown, options))


def along(field: str, values: Interval) -> Mark:
    """The fields of a mark that place a figure and its interval along an axis."""
    return dict(zip((field, f"{field}_low", f"{field}_high"), values, strict=True))


def one_line(text: str) -> str:
    return " ".join(text.replace("-\n", "").split())


# --- Renderers --------------------------------------------------------------------------------------


def markdown_rows(table: Table) -> str:
    """The rows of a table below its columns; a line break stays one, since the width of a page is
    scarce.
    """
    if not len(table):
        return "No rows yet."
    lines = [table.columns, *(record.values() for record in table.records)]
    head, *rows = (f"| {' | '.join(line)} |".replace("\n", "<br>") for line in lines)
    return "\n".join([head, "|" + "---|" * len(table.columns), *rows])


def as_markdown(table: Table) -> str:
    """The title with the notes, as on the terminal, and the whole table."""
    table = table.with_reasons_once()
    return f"{table.heading}.\n\n{markdown_rows(table)}"


def print_table(
    console: Console, table: Table, most: int | None = None, whole: bool = False
) -> None:
    """Print a table without frames, in as many parts as the width needs, each with the columns that
    name a row; `whole`: in one part, in which names go on in another line. On a terminal its first
    `most` rows, and the query that has all of them.
    """
    table = table.with_reasons_once()
    if table.heading:
        _print_text(console, table.heading, style="italic")
    shown = list(table.records)[:most] if console.is_terminal else list(table.records)
    for columns in [table.columns] if whole else _parts(table, shown, console.width):
        grid = rich.table.Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for place, column in enumerate(columns):
            # The name gives way where a line has no room; figures beside it stay whole.
            grid.add_column(column, overflow="fold", no_wrap=place > 0 and len(columns) > 2)
        for record in shown:
            grid.add_row(*(record[column] for column in columns))
        console.print(grid)

    if (hidden := len(table) - len(shown)) > 0:
        _print_text(console, f"and {counted(hidden, 'more row')}: triage sql {table.query}")


def _print_text(console: Console, text: str, style: str | None = None) -> None:
    """As wide as the terminal, however narrow the table is; a line in a file or a pipe."""
    console.print(text, style=style, soft_wrap=not console.is_terminal)


def _parts(table: Table, shown: Sequence[Record], width: int) -> list[list[str]]:
    """The columns of each part: as many as fit beside those that name a row, and at least one."""
    widths = {
        column: 1 + max(len(line) for text in (column, *cells) for line in text.split("\n"))
        for column in table.columns
        for cells in [[record[column] for record in shown]]
    }
    names, others = table.columns[: table.names], table.columns[table.names :]
    parts = [list(names)]
    for column in others:
        used = sum(widths[name] for name in parts[-1])
        if len(parts[-1]) > len(names) and used + widths[column] - 1 > width:
            parts.append(list(names))
        parts[-1].append(column)
    return parts
