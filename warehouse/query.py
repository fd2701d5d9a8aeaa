"""SQL from people: read-only, one statement, no files, no network; the answer is a pandas DataFrame."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import duckdb
import pandas as pd

from tasks.runtime.errors import BadInput
from warehouse.connect import reading

# Read-only protects the warehouse. This protects everything else: no file, extension, network or Python variable can be
# reached, and no statement can undo it.
SEALED = {"enable_external_access": "false", "lock_configuration": "true"}
ALLOWED = "SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or PIVOT"


def query(
    sql: str, database: Path | None = None, only: Collection[str] | None = None
) -> pd.DataFrame:
    """The rows of one reading statement, e.g. `query("FROM quantization_comparison")` in a notebook.

    `only`: ids of evaluations; the views then show these, and no others, however many later ones there are.
    Raises BadInput, in a sentence, for anything but one such statement, for what DuckDB refuses, and where there is no
    warehouse yet. Keeps the warehouse open only while it runs.
    """
    with reading(database, config=SEALED) as con:
        try:
            _check(con.extract_statements(sql), sql)
            if only is not None:
                ids = ", ".join("'" + id.replace("'", "''") + "'" for id in sorted(only))
                con.execute(f"SET VARIABLE only_evaluations = [{ids}]::VARCHAR[]")
            return con.execute(sql).df()
        except duckdb.Error as error:
            raise BadInput(f"The query failed: {_sentence(error)}") from error


def _check(statements: list[duckdb.Statement], sql: str) -> None:
    kinds = [statement.type.name for statement in statements]
    # A pivot may run in two steps, which DuckDB 1.5 and 2.0 name differently.
    pivot = re.match(r"\s*pivot\b", sql, re.IGNORECASE)
    if kinds == ["SELECT"] and not re.match(r"\s*pragma\b", sql, re.IGNORECASE):
        return
    if pivot and kinds in (["MULTI"], ["CREATE", "SELECT"]):
        return
    if not kinds:
        raise BadInput(f"There is no SQL statement to run; give one {ALLOWED} statement.")
    what = f"{len(kinds)} statements" if len(kinds) > 1 else f"this {kinds[0]} statement"
    raise BadInput(f"Queries only read: {what} cannot be run; give one {ALLOWED} statement.")


def _sentence(error: duckdb.Error) -> str:
    """DuckDB's message on one line, without the kind of error and the picture of the statement."""
    text = re.split(r"\n\s*LINE \d+:", str(error))[0]
    text = re.sub(r"^[\w ]+ Error: ", "", " ".join(text.split()))
    return text if text.endswith((".", "?")) else f"{text.rstrip('!')}."
