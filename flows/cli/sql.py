"""`triage sql`: a read-only query within bounds, typed or named, as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import date, datetime
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TextIO, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.terminal import (
    ESCAPED_IN_JSON,
    INTERRUPTED,
    WITHOUT_TERMINAL,
    console,
    errors,
    load_what_waits,
    print_error,
    print_line,
    printable,
    refuse_existing,
)
from flows.report.figures import counted

if TYPE_CHECKING:
    import pyarrow as pa

    from warehouse.cookbook import NamedQuery
    from warehouse.query import Bounds, Rows

Result = TypeVar("Result")  # rows, in whatever form
OutputFormat = Literal["table", "csv", "json", "parquet"]
BY_SUFFIX: dict[str, OutputFormat] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
MOST_IN_TABLE = 1000
BORDER = 3  # characters that a table needs beside each column, and one more at its end
EXPONENT_FROM = 1e15  # below, a large float is a whole number: 4 digits and an exponent say less
LOOK_SECONDS = 0.02
GRACE_SECONDS = 1.0  # for DuckDB to stop by itself
OWN_BYTES = 256_000_000  # of DuckDB and Python beside the data

Query = Annotated[
    str | None, typer.Argument(help="one SELECT statement, or the name of a query of --list")
]
Param = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="value of a parameter, $KEY in SQL (repeatable)"),
]
Listed = Annotated[
    bool, typer.Option("--list", help="list the named queries with their parameters")
]
Format = Annotated[
    OutputFormat | None,
    typer.Option(
        "--format",
        help="csv, json and parquet have all digits; table, the default, rounds floats to four; "
        "json writes a decimal that a float would round as text, and needs distinct column "
        "names; default: by the suffix of the file",
    ),
]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="write to a new file; parquet needs one")
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
        help=f"only the first N rows; {MOST_IN_TABLE} in a table, all of them in other formats",
    ),
]


def sql(
    query: Query = None,
    param: Param = None,
    output_format: Format = None,
    output: Output = None,
    rows: Most = None,
    memory: Memory = "2GB",
    seconds: Seconds = 60.0,
    listed: Listed = False,
    as_csv: Csv = False,
) -> None:
    """Query the warehouse (read-only), e.g. triage sql four_bits_against_eight."""
    if listed:
        _print_list()
        return

    result_format = _format("csv" if as_csv else output_format, output)
    stored_query, statement, params = _statement(query, param or [])
    bounds = _bounds(memory, seconds)
    load_what_waits()

    try:
        if stored_query:
            stored_query.check_values(params)
        row_count = _run(statement, params, bounds, rows, result_format, output)
        if stored_query and stored_query.no_rows and not row_count:
            print_line(errors, f"0 rows: {stored_query.no_rows}.")
    except KeyboardInterrupt:
        print_error("Interrupted.")
        raise SystemExit(INTERRUPTED) from None  # typer's own exit would be said once more


def _print_list() -> None:
    from warehouse.cookbook import cookbook

    for stored_query in cookbook():
        console.print(stored_query.name, style="bold")
        print_line(console, f"  {stored_query.explanation}")
        for parameter in stored_query.parameters:
            print_line(console, f"  {parameter}")

    print_line(console, "Run one: triage sql NAME --param key=value")


def _format(requested_format: OutputFormat | None, output: Path | None) -> OutputFormat:
    from tasks.runtime.errors import BadInput

    if output is not None:
        refuse_existing(output)
        return requested_format or BY_SUFFIX.get(output.suffix.lower(), "table")
    if requested_format == "parquet":
        raise BadInput("Parquet is not for a terminal; name a file, e.g. --output rows.parquet.")
    return requested_format or "table"


def _statement(
    query: str | None, assigned: list[str]
) -> tuple[NamedQuery | None, str, dict[str, object]]:
    """The SQL to run with the values of its parameters: of a named query, or typed (None)."""
    from tasks.runtime.errors import BadInput
    from warehouse.cookbook import assignments, is_name, named_query, typed_value

    if query is None:
        raise BadInput(
            "Give one SELECT statement or the name of a query; triage sql --list has them."
        )

    values = assignments(assigned)
    if is_name(query):
        stored_query = named_query(query)
        return stored_query, stored_query.sql, stored_query.values(values)

    return None, query, {name: typed_value(text) for name, text in values.items()}


def _bounds(memory: str, seconds: float) -> Bounds:
    from tasks.runtime.errors import BadInput
    from tasks.spec import byte_count
    from warehouse.query import Bounds

    try:
        return Bounds(byte_count(memory), seconds)
    except ValueError as error:
        raise BadInput(f"--memory: {error}.") from error


def _run(
    statement: str,
    params: dict[str, object],
    bounds: Bounds,
    rows: int | None,
    result_format: OutputFormat,
    output: Path | None,
) -> int:
    """Run and write; returns the number of rows. Raises BadInput where the
    query needs more than its bounds.
    """
    from warehouse.query import query_arrow, query_rows

    if output is not None and result_format == "parquet":
        table, cut = supervised(lambda: query_arrow(statement, params, bounds, rows), bounds)
        _write_parquet(table, output)
        _say_written(table.num_rows, cut, output)
        return int(table.num_rows)

    most = MOST_IN_TABLE if rows is None and result_format == "table" else rows
    result = supervised(lambda: query_rows(statement, params, bounds=bounds, most=most), bounds)
    row_count = len(result.rows)
    if output is not None:
        _write_rows(result, result_format, output)
        _say_written(row_count, result.cut, output)
        return row_count

    if result_format == "table":
        _print_rows(console, result)
    else:
        _TEXT_WRITERS[result_format](result, sys.stdout)

    if result.cut:
        text = f"There are more rows than these {row_count:,}; to see more: --rows {10 * row_count}"
        if result_format == "table":
            print_line(console, f"{text}, or all of them: --format csv")
        else:  # apart from what another program reads
            print_line(errors, text)

    return row_count


def supervised(run: Callable[[], Result], bounds: Bounds) -> Result:
    """The rows of `run()`, a query with these bounds; past them, and at Ctrl-C, the process ends.

    DuckDB counts the memory of its tables and heeds an interruption between two parts of its work.
    A single function call, such as repeat('x', 4000000000), does neither. So the query runs in a
    thread, and the main thread looks at the clock and at the memory of the process. It ends the
    process where need be: the connection only reads, so nothing is lost.
    """
    from tasks.runtime.memory import resident_bytes

    result: Future[Result] = Future()

    def work() -> None:
        try:
            result.set_result(run())
        # Whatever it is: it is raised again in the main thread.
        except BaseException as error:
            result.set_exception(error)

    most_bytes = resident_bytes() + OWN_BYTES + (bounds.memory or sys.maxsize)
    deadline = math.inf
    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    try:
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            # The clock starts with the statement: waiting for the file has a limit of its own.
            if deadline == math.inf and bounds.begun.is_set():
                deadline = time.monotonic() + GRACE_SECONDS + (bounds.seconds or math.inf)
            if resident_bytes() > most_bytes:
                _end(bounds.memory_sentence())
            if time.monotonic() > deadline:
                _end(bounds.time_sentence())
    except KeyboardInterrupt:
        _end("Interrupted. The query was stopped.", INTERRUPTED)

    return result.result()


def _end(sentence: str, code: int = 2) -> NoReturn:
    """End the process at once: the query's thread cannot be stopped."""
    print_error(sentence)
    # os._exit flushes nothing.
    errors.file.flush()
    sys.stdout.flush()
    os._exit(code)


def _write_rows(result: Rows, output_format: OutputFormat, path: Path) -> None:
    """Write rows to a new file, whole or not at all. Raises BadInput where there is one already."""
    with _new_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if output_format == "table":
            _print_rows(
                Console(file=file, highlight=False, markup=False, width=WITHOUT_TERMINAL), result
            )
        else:
            _TEXT_WRITERS[output_format](result, file)


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    with _new_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """A temporary file that becomes `path` at the end of the block, unless there is one by then."""
    from tasks.runtime.errors import disk_error

    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")

    try:
        yield temporary
        try:
            os.link(temporary, path)  # unlike a renaming, it replaces no file
        except OSError:  # there is a file by now, or the file system has no links
            refuse_existing(path)
            temporary.rename(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _say_written(rows: int, cut: bool, output: Path) -> None:
    more = f"; there are more, to write them: --rows {10 * rows}" if cut else ""
    print_line(errors, f"{counted(rows, 'row')} in {output}{more}")


def _print_rows(console: Console, result: Rows) -> None:
    """A table if it fits the console, else records, one below the other."""
    columns = tuple(printable(name) for name in result.columns)
    cells = [[_cell(value) for value in row] for row in result.rows]
    if not cells:
        console.print("0 rows")
    elif _table_width(columns, cells) <= console.width:
        table = Table(*columns)
        for row in cells:
            table.add_row(*row)
        console.print(table)
    else:
        _print_records(console, columns, cells)


def _cell(value: object) -> str:
    """A value as a person reads it: floats with four significant digits, NULL in words."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        is_whole = 1e4 <= abs(value) < EXPONENT_FROM
        return f"{value:.0f}" if is_whole else f"{value:.4g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return printable(str(value))


def _table_width(columns: tuple[str, ...], cells: list[list[str]]) -> int:
    """Characters of a table in which no cell is wrapped."""
    widths = [
        max(len(line) for text in texts for line in text.split("\n"))
        for texts in zip(columns, *cells, strict=True)
    ]
    return sum(widths) + BORDER * len(widths) + 1


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
    from tasks.runtime.errors import BadInput

    equal = [name for name, count in Counter(result.columns).items() if count > 1]
    if equal:
        raise BadInput(
            f"JSON has one value for each name, and several columns are named {', '.join(equal)}; "
            "name them with AS, e.g. SELECT 1 AS a, 2 AS b, or give --format csv."
        )

    separator = "["
    for row in result.rows:
        record = _jsonable(dict(zip(result.columns, row, strict=True)))
        # Of control characters json escapes those below 32 alone; a terminal obeys others, too.
        text = json.dumps(record, ensure_ascii=False, indent=1).translate(ESCAPED_IN_JSON)
        file.write(f"{separator}\n " + text.replace("\n", "\n "))
        separator = ","
    file.write("\n]\n" if result.rows else "[]\n")


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        # A number where a float has all its digits, else text.
        number = float(value)
        return number if Decimal(repr(number)) == value else str(value)
    if isinstance(value, date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


_TEXT_WRITERS: dict[str, Callable[[Rows, TextIO], None]] = {"csv": _write_csv, "json": _write_json}
