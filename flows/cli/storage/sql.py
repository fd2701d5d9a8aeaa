"""`triage sql`: a read-only query within bounds, typed or named, as a table, CSV, JSON or Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.storage.sql_output import (
    OutputFormat,
    refuse_existing,
    show,
    write_parquet,
    write_rows,
)
from flows.cli.terminal import INTERRUPTED, console, errors, print_error, print_line
from flows.cli.waiting import load_what_waits
from flows.report.figures import counted

if TYPE_CHECKING:
    from warehouse.bounds import Bounds
    from warehouse.cookbook import NamedQuery

MOST_IN_TABLE = 1000
BY_SUFFIX: dict[str, OutputFormat] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}

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
    load_what_waits()

    try:
        if stored_query:
            stored_query.check_values(params)
        row_count = _run(statement, params, _bounds(memory, seconds), rows, result_format, output)
        if stored_query and stored_query.no_rows and not row_count:
            print_line(errors, f"0 rows: {stored_query.no_rows}.")
    except KeyboardInterrupt:
        print_error("Interrupted.")
        raise SystemExit(INTERRUPTED) from None  # typer's own exit would be said once more


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
    from warehouse.bounds import Bounds

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
    from flows.cli.storage.supervised import supervised
    from warehouse.query import query_arrow, query_rows

    if output is not None and result_format == "parquet":
        table, cut = supervised(lambda: query_arrow(statement, params, bounds, rows), bounds)
        write_parquet(table, output)
        _say_written(table.num_rows, cut, output)
        return int(table.num_rows)

    most = MOST_IN_TABLE if rows is None and result_format == "table" else rows
    result = supervised(lambda: query_rows(statement, params, bounds=bounds, most=most), bounds)
    if output is not None:
        write_rows(result, result_format, output)
        _say_written(len(result.rows), result.cut, output)
        return len(result.rows)

    show(result, result_format)
    if result.cut:
        _say_cut(len(result.rows), result_format)
    return len(result.rows)


def _say_written(rows: int, cut: bool, output: Path) -> None:
    more = f"; there are more, to write them: --rows {10 * rows}" if cut else ""
    print_line(errors, f"{counted(rows, 'row')} in {output}{more}")


def _say_cut(rows: int, output_format: OutputFormat) -> None:
    """Say that there are more rows, beside a table and apart from what another program reads."""
    text = f"There are more rows than these {rows:,}; to see more: --rows {10 * rows}"
    if output_format == "table":
        print_line(console, f"{text}, or all of them: --format csv")
    else:
        print_line(errors, text)


def _print_list() -> None:
    from warehouse.cookbook import cookbook

    for stored_query in cookbook():
        _print_named(stored_query)
    print_line(console, "Run one: triage sql NAME --param key=value")


def _print_named(stored_query: NamedQuery) -> None:
    console.print(stored_query.name, style="bold")
    print_line(console, f"  {stored_query.explanation}")
    for parameter in stored_query.parameters:
        print_line(console, f"  {parameter}")
