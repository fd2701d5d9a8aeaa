"""Which statements may be run: a single one, which only reads, with a value for each parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping

import duckdb

from tasks.runtime.errors import BadInput

ALLOWED = "SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or PIVOT"


def refuse_unless_reading(statements: list[duckdb.Statement], sql: str) -> None:
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


def refuse_other_parameters(
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
