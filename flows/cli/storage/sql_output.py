"""What `triage sql` makes of rows: a table or records, CSV, JSON or Parquet; shown, or in a file."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from rich.console import Console
from rich.table import Table

from flows.cli.terminal import ESCAPED_IN_JSON, WITHOUT_TERMINAL, console, printable

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse.query import Rows

OutputFormat = Literal["table", "csv", "json", "parquet"]
BORDER = 3  # characters that a table needs beside each column, and one more at its end
EXPONENT_FROM = 1e15  # below, a large float is a whole number: 4 digits and an exponent say less


def show(result: Rows, output_format: OutputFormat) -> None:
    """Print rows to standard output."""
    if output_format == "table":
        _print_rows(console, result)
    else:
        _TEXT_WRITERS[output_format](result, sys.stdout)


def write_rows(result: Rows, output_format: OutputFormat, path: Path) -> None:
    """Write rows to a new file, whole or not at all. Raises BadInput where there is one already."""
    with _new_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if output_format == "table":
            _print_rows(
                Console(file=file, highlight=False, markup=False, width=WITHOUT_TERMINAL), result
            )
        else:
            _TEXT_WRITERS[output_format](result, file)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table to a new Parquet file, whole or not at all; as `write_rows`."""
    import pyarrow.parquet as pq

    with _new_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def refuse_existing(path: Path) -> None:
    """Raise BadInput unless a new file can be made at `path`."""
    from tasks.runtime.errors import BadInput

    if os.path.lexists(path):
        raise BadInput(f"{path} is there already and stays as it is; give --output another name.")
    if not path.parent.is_dir():
        raise BadInput(
            f"There is no folder {path.parent}; create it, or give --output another name."
        )


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A temporary file that becomes `path` at the end of the block, unless there is one by then."""
    from tasks.runtime.errors import disk_error

    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")

    try:
        yield temporary
        _put(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    """Give a finished file its name; a link, unlike a renaming, replaces no file."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        refuse_existing(path)
    except OSError:  # a file system without links
        refuse_existing(path)
        temporary.rename(path)


def _print_rows(console: Console, result: Rows) -> None:
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


def _write_csv(result: Rows, file: TextIO) -> None:
    """Comma-separated values with all digits and a header; NULL is an empty field."""
    writer = csv.writer(file, lineterminator="\n")
    rows: Iterable[Sequence[object]] = chain([result.columns], result.rows)
    if file.isatty():  # a file holds the values as they are
        rows = ([_printable_value(value) for value in row] for row in rows)
    writer.writerows(rows)


def _printable_value(value: object) -> object:
    """A value as a terminal may get it: text, and what becomes text, without control characters."""
    return (
        value if value is None or isinstance(value, bool | int | float) else printable(str(value))
    )


def _write_json(result: Rows, file: TextIO) -> None:
    """A list of objects with all digits; what JSON has no word for (NaN, infinity) is null.

    Raises BadInput where columns share a name, since an object has each name once.
    """
    _refuse_equal_names(result.columns)
    separator = "["
    for row in result.rows:
        record = _jsonable(dict(zip(result.columns, row, strict=True)))
        # Of control characters json escapes those below 32 alone; a terminal obeys others, too.
        text = json.dumps(record, ensure_ascii=False, indent=1).translate(ESCAPED_IN_JSON)
        file.write(f"{separator}\n " + text.replace("\n", "\n "))
        separator = ","
    file.write("\n]\n" if result.rows else "[]\n")


def _refuse_equal_names(columns: Sequence[str]) -> None:
    from tasks.runtime.errors import BadInput

    equal = [name for name, count in Counter(columns).items() if count > 1]
    if equal:
        raise BadInput(
            f"JSON has one value for each name, and several columns are named {', '.join(equal)}; "
            "name them with AS, e.g. SELECT 1 AS a, 2 AS b, or give --format csv."
        )


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


def _decimal(value: Decimal) -> float | str:
    """A number where a float has all its digits, else text."""
    number = float(value)
    return number if Decimal(repr(number)) == value else str(value)


_TEXT_WRITERS: dict[str, Callable[[Rows, TextIO], None]] = {"csv": _write_csv, "json": _write_json}
