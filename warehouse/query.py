"""User-supplied SQL: one read-only statement within bounds, without access to files or the network."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import SEALED, Settings, is_damage, quoted, reading

if TYPE_CHECKING:
    import pyarrow as pa

ALLOWED = "SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or PIVOT"
LEAST_MEMORY = 50_000_000
ROWS_AT_ONCE = 10_000
MACROS = (
    "SELECT DISTINCT function_name FROM duckdb_functions() "
    "WHERE function_type = 'table_macro' AND NOT internal AND ends_with(function_name, '_of')"
)
TABLES_WITH_ID = "SELECT table_name FROM duckdb_columns() WHERE column_name = 'evaluation_id'"
VIEW_DEFINITIONS = "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal"
CATALOG = """SELECT '"' || replace(current_database(), '"', '""') || '"'"""

Parameters = Mapping[str, object] | None  # value by name, as in `WHERE bits = $bits`


@dataclass(frozen=True)
class Bounds:
    """Bytes of memory and seconds that DuckDB may take for a query; None leaves it its own.

    `begun` is set when the statement starts, after a wait for the file.
    """

    memory: int | None = None
    seconds: float | None = None
    begun: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def settings(self) -> Settings:
        if self.memory is None:
            return SEALED
        if self.memory < LEAST_MEMORY:
            raise BadInput(
                f"A query needs at least {LEAST_MEMORY // 10**6} MB of memory, not {self.memory} "
                "bytes; give it more with --memory."
            )
        # What does not fit is refused, not put on the disk.
        return {**SEALED, "temp_directory": "", "memory_limit": f"{self.memory}B"}

    def memory_sentence(self) -> str:
        """What to do where the memory does not suffice."""
        size = f"{self.memory or 0:,} bytes"
        return f"The query needs more than {size} of memory; allow more with --memory, e.g. 8GB."

    def time_sentence(self) -> str:
        """What to do where the time does not suffice."""
        return (
            f"The query was stopped after {self.seconds:g} seconds; allow more with --seconds, "
            "e.g. 600."
        )


@dataclass(frozen=True)
class Rows:
    """The result of a query as Python values, with the name and DuckDB type of each column.

    `cut`: there are more rows than were asked for.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[object, ...]]
    cut: bool = False


def query(
    sql: str,
    params: Parameters = None,
    as_: Literal["pandas", "arrow"] = "pandas",
    *,
    database: Path | None = None,
    only: Collection[str] | None = None,
    bounds: Bounds | None = None,
) -> Any:
    """The result of one read-only statement, e.g. `query("FROM leaderboard")` in a notebook.

    `params` are the values of its parameters, `$name`, by name. `as_` is "pandas" or "arrow"; in a
    DataFrame whole numbers and truth values stay what they are where some are missing (Int64,
    boolean). `only` limits the views to the evaluations with these ids, however many later ones
    there are. Raises BadInput, in one sentence, for anything but one read-only statement, for an
    error of DuckDB, and where there is no warehouse yet. The warehouse is open only while the
    statement runs.
    """
    if as_ not in ("pandas", "arrow"):
        raise BadInput(f"as_ = {as_!r} is not a form of result; give 'pandas' or 'arrow'.")
    with _checked(sql, params, database, only, bounds or Bounds()) as con:
        table = con.sql(sql, params=dict(params or {})).to_arrow_table()
    table = _with_whole_sums(table, other_decimals_as_floats=True)
    if as_ == "arrow":
        return table

    import pandas as pd
    import pyarrow as pa

    # A missing value turns no whole number into a float.
    whole = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    types = {getattr(pa, name.lower())(): pd.api.types.pandas_dtype(name) for name in whole}
    types[pa.bool_()] = pd.BooleanDtype()
    return table.to_pandas(types_mapper=types.get, date_as_object=False)


def query_arrow(
    sql: str, params: Parameters, bounds: Bounds, most: int | None = None
) -> tuple[pa.Table, bool]:
    """The first `most` rows as an Arrow table, and whether there are more."""
    with _checked(sql, params, None, None, bounds) as con:
        rows = con.sql(sql, params=dict(params or {}))
        table = (rows if most is None else rows.limit(most + 1)).to_arrow_table()
    cut = most is not None and table.num_rows > most
    return _with_whole_sums(table.slice(0, most)), cut


def query_rows(
    sql: str,
    params: Parameters = None,
    *,
    database: Path | None = None,
    only: Collection[str] | None = None,
    bounds: Bounds | None = None,
    most: int | None = None,
) -> Rows:
    """As `query`, without pandas, whose import takes longer than most queries; the first `most`
    rows.
    """
    with _checked(sql, params, database, only, bounds or Bounds()) as con:
        result = con.execute(sql, dict(params or {}))
        columns = result.description or []
        rows: list[tuple[object, ...]] = []
        # A part at a time: other threads look at the memory in between.
        while most is None or len(rows) <= most:
            room = ROWS_AT_ONCE if most is None else min(ROWS_AT_ONCE, most + 1 - len(rows))
            part = result.fetchmany(room)
            if not part:
                break
            rows += part

        return Rows(
            columns=tuple(name for name, *_ in columns),
            types=tuple(str(type_).strip('"') for _, type_, *_ in columns),
            rows=rows[:most],
            cut=most is not None and len(rows) > most,
        )


@contextlib.contextmanager
def _checked(
    sql: str,
    params: Parameters,
    database: Path | None,
    only: Collection[str] | None,
    bounds: Bounds,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for this statement, which only reads; what DuckDB says in the block becomes a
    sentence.
    """
    if params is not None and not isinstance(params, Mapping):
        raise BadInput(
            "Parameters are values by name, e.g. query(sql, {'bits': 4}); a file is named by "
            "database=..."
        )
    with (
        reading(database, settings=bounds.settings) as con,
        _stopped_after(con, bounds.seconds) as expired,
    ):
        bounds.begun.set()
        try:
            statements = con.extract_statements(sql)
            _refuse_unless_reading(statements, sql)
            _refuse_other_parameters(statements, params or {})
            if only is not None:
                _narrow_views(con, sql, only)
            yield con
        except duckdb.Error as error:
            if is_damage(error):
                raise
            if isinstance(error, duckdb.InterruptException) and expired.is_set():
                raise BadInput(bounds.time_sentence()) from error
            if isinstance(error, duckdb.OutOfMemoryException) and bounds.memory is not None:
                raise BadInput(bounds.memory_sentence()) from error
            raise BadInput(f"The query failed: {_sentence(error)}") from error


@contextlib.contextmanager
def _stopped_after(
    con: duckdb.DuckDBPyConnection, seconds: float | None
) -> Iterator[threading.Event]:
    """Interrupt what the connection does after so many seconds; the event says whether that was so."""
    expired = threading.Event()

    def stop() -> None:
        expired.set()
        with contextlib.suppress(duckdb.Error):  # it has been closed in the meantime
            con.interrupt()

    timer = threading.Timer(min(seconds or 0.0, threading.TIMEOUT_MAX), stop)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


def _refuse_unless_reading(statements: list[duckdb.Statement], sql: str) -> None:
    """Raise BadInput unless the statements are a single one that only reads."""
    kinds = [statement.type.name for statement in statements]
    if kinds == ["SELECT"] and not re.match(r"\s*pragma\b", sql, re.IGNORECASE):
        return

    # A pivot may run in two steps, which DuckDB 1.5 and 2.0 name differently.
    is_pivot = re.match(r"\s*pivot\b", sql, re.IGNORECASE)
    if is_pivot and kinds in (["MULTI"], ["CREATE", "SELECT"]):
        return

    if not kinds:
        raise BadInput(f"There is no SQL statement to run; give one {ALLOWED} statement.")

    refused_kinds = f"{len(kinds)} statements" if len(kinds) > 1 else f"this {kinds[0]} statement"
    raise BadInput(
        f"Queries only read: {refused_kinds} cannot be run; give one {ALLOWED} statement."
    )


def _refuse_other_parameters(
    statements: list[duckdb.Statement], params: Mapping[str, object]
) -> None:
    """Raise BadInput unless the parameters of the statement are exactly those that have a value."""
    parameters = set().union(*(statement.named_parameters for statement in statements))
    # First, since a mistyped name is missing under its right one, too.
    if unknown := sorted(params.keys() - parameters):
        has = f"it has {_marked(sorted(parameters))}" if parameters else "it has none"
        raise BadInput(f"The query has no parameter {_marked(unknown)}; {has}.")
    if missing := sorted(parameters - params.keys()):
        raise BadInput(f"The query needs a value for its parameter {_marked(missing)}.")


def _marked(names: list[str]) -> str:
    return ", ".join(f"${name}" for name in names)


def _narrow_views(con: duckdb.DuckDBPyConnection, sql: str, only: Collection[str]) -> None:
    """Shadow each view that a statement reads, directly or through another view, by a temporary
    view of these evaluations alone, on this connection.

    A temporary view calls the view's table macro, which narrows what it reads, or leaves out the
    rows of other evaluations.
    """
    macros = {name.removesuffix("_of") for (name,) in con.execute(MACROS).fetchall()}
    definitions = dict(con.execute(VIEW_DEFINITIONS).fetchall())
    views: set[str] = set()
    texts = [sql]
    while texts:
        text = texts.pop()
        for view in definitions.keys() - views:
            if re.search(rf"\b{view}\b", text, re.IGNORECASE):
                views.add(view)
                if view not in macros:
                    texts.append(definitions[view])

    ids = ", ".join(map(quoted, sorted(only)))
    with_id = {name for (name,) in con.execute(TABLES_WITH_ID).fetchall()}
    # The opened file: temporary views are in another catalog.
    ((catalog,),) = con.execute(CATALOG).fetchall()
    for view in sorted(views):
        if view in macros:
            con.execute(f"CREATE TEMP VIEW {view} AS FROM {view}_of([{ids}]::VARCHAR[])")
        elif view in with_id:
            con.execute(
                f"CREATE TEMP VIEW {view} AS FROM {catalog}.main.{view} "
                f"WHERE list_contains([{ids}]::VARCHAR[], evaluation_id)"
            )


def _sentence(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the kind of error and the excerpt of the statement."""
    text = re.split(r"\n\s*LINE \d+:", str(error))[0]
    text = re.sub(r"^[\w ]+ Error: ", "", " ".join(text.split()))
    return text if text.endswith((".", "?")) else f"{text.rstrip('!')}."


def _with_whole_sums(table: pa.Table, other_decimals_as_floats: bool = False) -> pa.Table:
    """Sums of whole numbers, which DuckDB gives 128 bits, as whole numbers of 64 bits where they
    fit; other decimals stay as they are, with all their digits, or become floats, which pandas can
    compute with.
    """
    import pyarrow as pa

    for index, column in enumerate(table.schema):
        if not pa.types.is_decimal(column.type):
            continue
        try:
            values = table.column(index).cast(pa.int64())
        except pa.ArrowInvalid:  # a fraction, or too large
            if not other_decimals_as_floats:
                continue
            values = table.column(index).cast(pa.float64())
        table = table.set_column(index, column.name, values)

    return table
