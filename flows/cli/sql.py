"""`triage sql`: a read-only query within bounds, as a table, as records, as CSV or as JSON."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.terminal import (
    ESCAPED_IN_JSON,
    INTERRUPTED,
    console,
    errors,
    print_error,
    print_line,
    printable,
)

if TYPE_CHECKING:
    from warehouse.query import Rows

OutputFormat = Literal["table", "csv", "json"]
BORDER = 3  # characters that a table needs beside each column, and one more at its end
MOST_IN_TABLE = 1000
EXPONENT_FROM = 1e15  # below, a large float is a whole number: 4 digits and an exponent say less

Query = Annotated[str, typer.Argument(help="one SELECT statement")]
Format = Annotated[
    OutputFormat,
    typer.Option("--format", help="csv and json give all digits; table rounds floats to four"),
]
Csv = Annotated[bool, typer.Option("--csv", hidden=True, help="the same as --format csv")]
Memory = Annotated[str, typer.Option(help="memory that the query may use")]
Seconds = Annotated[float, typer.Option(min=0.001, help="time that the query may take")]
Most = Annotated[
    int | None,
    typer.Option(
        "--rows",
        min=1,
        metavar="N",
        help=f"only the first N rows; {MOST_IN_TABLE} in a table, all of them in csv and json",
    ),
]


def sql(
    query: Query,
    output_format: Format = "table",
    rows: Most = None,
    memory: Memory = "2GB",
    seconds: Seconds = 60.0,
    as_csv: Csv = False,
) -> None:
    """Query the warehouse (read-only), e.g. triage sql "FROM quantization_comparison"."""
    output_format = "csv" if as_csv else output_format
    most = MOST_IN_TABLE if rows is None and output_format == "table" else rows
    try:
        result = _run(query, memory, seconds, most)
        _write(result, output_format)
    except KeyboardInterrupt:
        print_error("Interrupted.")
        raise SystemExit(INTERRUPTED) from None  # typer's own exit would be said once more
    if result.cut:
        _say_cut(len(result.rows), output_format)


def _run(query: str, memory: str, seconds: float, most: int | None) -> Rows:
    """The first `most` rows of a query. Raises BadInput where it needs more than its bounds."""
    from flows.cli.supervised import supervised
    from warehouse.query import Bounds, query_rows

    bounds = Bounds(_byte_count(memory), seconds)
    return supervised(lambda: query_rows(query, bounds=bounds, most=most), bounds)


def _byte_count(memory: str) -> int:
    from tasks.runtime.errors import BadInput
    from tasks.spec import byte_count

    try:
        return byte_count(memory)
    except ValueError as error:
        raise BadInput(f"--memory: {error}.") from error


def _write(result: Rows, output_format: OutputFormat) -> None:
    if output_format == "csv":
        write_csv(result)
    elif output_format == "json":
        write_json(result)
    else:
        print_rows(console, result)


def _say_cut(rows: int, output_format: OutputFormat) -> None:
    """Say that there are more rows, beside a table and apart from what another program reads."""
    text = f"There are more rows than these {rows:,}; to see more: --rows {10 * rows}"
    if output_format == "table":
        print_line(console, f"{text}, or all of them: --format csv")
    else:
        print_line(errors, text)


def print_rows(console: Console, result: Rows) -> None:
    """A table if it fits the console, else records, one below the other."""
    columns = tuple(printable(name) for name in result.columns)
    cells = [[cell(value) for value in row] for row in result.rows]
    if not cells:
        console.print("0 rows")
    elif _table_width(columns, cells) <= console.width:
        _print_table(console, columns, cells)
    else:
        _print_records(console, columns, cells)


def cell(value: object) -> str:
    """A value as a person reads it: floats with four significant digits, NULL in words."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return printable(str(value))


def _rounded(value: float) -> str:
    if 1e4 <= abs(value) < EXPONENT_FROM:
        return f"{value:.0f}"
    return f"{value:.4g}"


def _table_width(columns: tuple[str, ...], cells: list[list[str]]) -> int:
    """Characters of a table in which no cell is wrapped."""
    widths = [
        max(len(line) for text in texts for line in text.split("\n"))
        for texts in zip(columns, *cells, strict=True)
    ]
    return sum(widths) + BORDER * len(widths) + 1


def _print_table(console: Console, columns: tuple[str, ...], cells: list[list[str]]) -> None:
    table = Table(*columns)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _print_records(console: Console, columns: tuple[str, ...], cells: list[list[str]]) -> None:
    """One line for each column of a row, `column: value`, under the number of the row."""
    width = max(len(name) for name in columns)
    for number, row in enumerate(cells, 1):
        console.print(f"-- row {number} of {len(cells)} --", style="bold", soft_wrap=True)
        for name, text in zip(columns, row, strict=True):
            console.print(f"{name + ':':<{width + 1}} {text}", soft_wrap=True)


def write_csv(result: Rows) -> None:
    """Comma-separated values with all digits and a header; NULL is an empty field."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows: Iterable[Sequence[object]] = chain([result.columns], result.rows)
    if sys.stdout.isatty():  # a file holds the values as they are
        rows = ([_shown(value) for value in row] for row in rows)
    writer.writerows(rows)


def _shown(value: object) -> object:
    """A value as a terminal may get it: text, and what becomes text, without control characters."""
    return (
        value if value is None or isinstance(value, bool | int | float) else printable(str(value))
    )


def write_json(result: Rows) -> None:
    """A list of objects with all digits; what JSON has no word for (NaN, infinity) is null."""
    before = "["
    for row in result.rows:
        record = _jsonable(dict(zip(result.columns, row, strict=True)))
        text = json.dumps(record, ensure_ascii=False, indent=1).translate(ESCAPED_IN_JSON)
        sys.stdout.write(f"{before}\n " + text.replace("\n", "\n "))
        before = ","
    sys.stdout.write("\n]\n" if result.rows else "[]\n")


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _jsonable(float(value))
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
