"""User-supplied SQL: one read-only statement, without access to files or the network."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import Settings, reading

if TYPE_CHECKING:
    import pandas as pd

# A read-only connection protects the warehouse. These settings protect everything else: no file,
# extension, network or Python variable can be reached, and no statement can undo them.
SEALED: Settings = {"enable_external_access": "false", "lock_configuration": "true"}
ALLOWED = "SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or PIVOT"


@dataclass(frozen=True)
class Rows:
    """The result of a query as Python values, with the name and DuckDB type of each column."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[object, ...]]


def query(
    sql: str, database: Path | None = None, only: Collection[str] | None = None
) -> pd.DataFrame:
    """The result of one read-only statement, e.g. `query("FROM leaderboard")` in a notebook.

    `only` limits the views to the evaluations with these ids, however many later ones there are.
    Raises BadInput, in one sentence, for anything but one read-only statement, for an error of
    DuckDB, and where there is no warehouse yet. The warehouse is open only while the statement
    runs.
    """
    with _executed(sql, database, only) as result:
        return result.df()


def query_rows(sql: str, database: Path | None = None, only: Collection[str] | None = None) -> Rows:
    """As `query`, without pandas, whose import takes longer than most queries."""
    with _executed(sql, database, only) as result:
        columns = result.description or []
        return Rows(
            columns=tuple(name for name, *_ in columns),
            types=tuple(str(type_).strip('"') for _, type_, *_ in columns),
            rows=result.fetchall(),
        )


@contextlib.contextmanager
def _executed(
    sql: str, database: Path | None, only: Collection[str] | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    with reading(database, settings=SEALED) as con:
        try:
            _refuse_unless_reading(con.extract_statements(sql), sql)
            if only is not None:
                ids = ", ".join("'" + id.replace("'", "''") + "'" for id in sorted(only))
                con.execute(f"SET VARIABLE only_evaluations = [{ids}]::VARCHAR[]")
            yield con.execute(sql)
        except duckdb.Error as error:
            raise BadInput(f"The query failed: {_sentence(error)}") from error


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
    refused = f"{len(kinds)} statements" if len(kinds) > 1 else f"this {kinds[0]} statement"
    raise BadInput(f"Queries only read: {refused} cannot be run; give one {ALLOWED} statement.")


def _sentence(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the kind of error and the excerpt of the statement."""
    text = re.split(r"\n\s*LINE \d+:", str(error))[0]
    text = re.sub(r"^[\w ]+ Error: ", "", " ".join(text.split()))
    return text if text.endswith((".", "?")) else f"{text.rstrip('!')}."
