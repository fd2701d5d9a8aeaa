"""`triage sql`: a read-only query within bounds, typed or named, as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Annotated, Literal, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from flows.cli.terminal import (
    INTERRUPTED,
    WITHOUT_TERMINAL,
    AsJson,
    console,
    errors,
    json_text,
    load_what_waits,
    print_error,
    print_line,
    printable,
    refuse_existing,
)
from flows.report.figures import counted
from tasks.runtime.device import resident_bytes
from tasks.runtime.errors import BadInput, disk_error
from tasks.spec import byte_count
from warehouse.cookbook import assignments, cookbook, is_name, named_query, typed_value
from warehouse.query import Bounds, Rows, query_arrow, query_rows

Result = TypeVar("Result")  # rows, in whatever form
OutputFormat = Literal["table", "csv", "json", "parquet"]
BY_SUFFIX: dict[str, OutputFormat] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}
MOST_IN_TABLE = 1000
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
        help="by the suffix of the file, else a table, which rounds floats to four digits; json "
        "writes a decimal that a float would round as text",
    ),
]
Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="write to a new file; parquet needs one")
]
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
    as_json: AsJson = False,
) -> None:
    """Query the warehouse (read-only), e.g. triage sql four_bits_against_eight."""
    if listed:
        for named in cookbook():
            console.print(named.name, style="bold")
            for line in (named.explanation, *named.parameters):
                print_line(console, f"  {line}")
        print_line(console, "Run one: triage sql NAME --param key=value")
        return

    form = "json" if as_json else output_format
    if output is not None:
        refuse_existing(output)
        form = form or BY_SUFFIX.get(output.suffix.lower())
    elif form == "parquet":
        raise BadInput("Parquet is not for a terminal; name a file, e.g. --output rows.parquet.")

    if query is None:
        raise BadInput(
            "Give one SELECT statement or the name of a query; triage sql --list has them."
        )
    assigned = assignments(param or [])
    stored_query = named_query(query) if is_name(query) else None
    if stored_query:
        statement, params = stored_query.sql, stored_query.values(assigned)
    else:
        statement, params = query, {name: typed_value(text) for name, text in assigned.items()}
    try:
        bounds = Bounds(byte_count(memory), seconds)
    except ValueError as error:
        raise BadInput(f"--memory: {error}.") from error

    load_what_waits()
    if stored_query:
        stored_query.check_values(params)
    if form == "parquet" and output is not None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table, cut = supervised(lambda: query_arrow(statement, params, bounds, rows), bounds)
        row_count = table.num_rows
        with _new_file(output) as file:
            try:
                pq.write_table(table, file, compression="zstd")
            except pa.ArrowException as error:
                raise BadInput(
                    f"Parquet cannot hold a column ({error}): cast it, or choose --format csv."
                ) from error
    else:
        most = rows or (MOST_IN_TABLE if form in (None, "table") else None)
        result = supervised(lambda: query_rows(statement, params, bounds=bounds, most=most), bounds)
        row_count = len(result.rows)
        cut = result.cut
        write = WRITERS[form or "table"]
        if output is None:
            write(result, console)
        else:
            with _new_file(output) as file:
                text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
                width = WITHOUT_TERMINAL
                write(result, Console(file=text, highlight=False, markup=False, width=width))

    # Apart from what another program reads.
    if output is not None:
        print_line(errors, f"{counted(row_count, 'row')} in {output}")
    if cut:
        print_line(
            errors,
            f"There are more rows than these {row_count:,}; to see more: --rows {10 * row_count}, "
            "or all of them: --format csv",
        )
    if stored_query and stored_query.no_rows and not row_count:
        print_line(errors, f"0 rows: {stored_query.no_rows}.")


def supervised(run: Callable[[], Result], bounds: Bounds) -> Result:
    """The rows of `run()`, a query with these bounds; past them, and at Ctrl-C, the process ends.

    DuckDB counts the memory of its tables and heeds an interruption between two parts of its work.
    A single function call, such as repeat('x', 4000000000), does neither. So the query runs in a
    thread, and the main thread looks at the clock and at the memory of the process. It ends the
    process where need be: the connection only reads, so nothing is lost.
    """
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


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file that becomes `path` at the end of the block, unless there is one by then."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            yield file

        try:
            os.link(temporary, path)  # unlike a renaming, it replaces no file
        except OSError:  # there is a file by now, or the file system has no links
            refuse_existing(path)
            temporary.rename(path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def _print_rows(result: Rows, console: Console) -> None:
    """A table if it fits the console without wrapping a cell, else records, one below the other:
    a line `column: value` for each column of a row, under the number of the row.
    """
    columns = [printable(name) for name in result.columns]
    cells = [[_cell(value) for value in row] for row in result.rows]
    if not cells:
        console.print("0 rows")
        return

    table = Table(*columns)
    for row in cells:
        table.add_row(*row)
    unbounded = console.options.update(width=sys.maxsize)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
        return

    width = max(len(name) for name in columns)
    for number, row in enumerate(cells, 1):
        console.print(f"-- row {number} of {len(cells)} --", style="bold", soft_wrap=True)
        for name, text in zip(columns, row, strict=True):
            console.print(f"{name + ':':<{width + 1}} {text}", soft_wrap=True)


def _cell(value: object) -> str:
    """A value as a person reads it: floats with four significant digits, NULL in words."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        is_whole = 1e4 <= abs(value) < 1e15
        return f"{value:.0f}" if is_whole else f"{value:.4g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return printable(str(value))


def _write_csv(result: Rows, console: Console) -> None:
    """Comma-separated values with all digits and a header; NULL is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows(result.rows)
    # A file holds the values as they are.
    content = text.getvalue()
    console.file.write(printable(content) if console.is_terminal else content)


def _write_json(result: Rows, console: Console) -> None:
    """A list of objects with all digits; what JSON has no word for (NaN, infinity) is null. Raises
    BadInput where columns share a name, since an object has each name once.
    """
    equal = [name for name, count in Counter(result.columns).items() if count > 1]
    if equal:
        raise BadInput(
            f"JSON has one value for each name, and several columns are named {', '.join(equal)}; "
            "name them with AS, e.g. SELECT 1 AS a, 2 AS b, or give --format csv."
        )
    objects = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    console.file.write(json_text(objects, _json_value) + "\n")


WRITERS = {"table": _print_rows, "csv": _write_csv, "json": _write_json}


def _json_value(value: object) -> object:
    if isinstance(value, Decimal):
        # A number where a float has all its digits, else text.
        number = float(value)
        return number if Decimal(repr(number)) == value else str(value)
    return value.isoformat() if isinstance(value, date) else str(value)
