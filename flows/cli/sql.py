"""`triage sql`: a read-only query; its rows as a table, as records, as CSV or as JSON."""

from __future__ import annotations

import csv
import json
import math
import sys
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.terminal import console

if TYPE_CHECKING:
    from warehouse.query import Rows

OutputFormat = Literal["table", "csv", "json"]
BORDER = 3  # characters that a table needs beside each column, and one more at its end
EXPONENT_FROM = 1e15  # below, a large float is a whole number: 4 digits and an exponent say less

Query = Annotated[str, typer.Argument(help="one SELECT statement")]
Format = Annotated[
    OutputFormat,
    typer.Option("--format", help="csv and json give all digits; table rounds floats to four"),
]
Csv = Annotated[bool, typer.Option("--csv", hidden=True, help="the same as --format csv")]


def sql(query: Query, output_format: Format = "table", as_csv: Csv = False) -> None:
    """Query the warehouse (read-only), e.g. triage sql "FROM quantization_comparison"."""
    from warehouse.query import query_rows

    result = query_rows(query)
    if as_csv or output_format == "csv":
        write_csv(result)
    elif output_format == "json":
        write_json(result)
    else:
        print_rows(console, result)


def print_rows(console: Console, result: Rows) -> None:
    """A table if it fits the console, else records, one below the other."""
    cells = [[cell(value) for value in row] for row in result.rows]
    if not cells:
        console.print("0 rows")
    elif _table_width(result.columns, cells) <= console.width:
        _print_table(console, result.columns, cells)
    else:
        _print_records(console, result.columns, cells)


def cell(value: object) -> str:
    """A value as a person reads it: floats with four significant digits, NULL in words."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)


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
    writer.writerow(result.columns)
    writer.writerows(result.rows)


def write_json(result: Rows) -> None:
    """A list of objects with all digits; what JSON has no word for (NaN, infinity) is null."""
    records = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    json.dump(_jsonable(records), sys.stdout, ensure_ascii=False, indent=1)
    sys.stdout.write("\n")


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
