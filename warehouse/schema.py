"""The landing tables as the migrations define them: columns, Arrow types, required columns, keys.

Read from an empty in-memory database to which the migrations were applied, so that a column is declared once, in SQL.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import first_line
from warehouse.migrate import migrate

_one_at_a_time = threading.Lock()
Kind = Literal["training", "evaluation", "variant", "benchmark", "fidelity"]


@dataclass(frozen=True)
class Fact:
    """What is landed together under one id. The first table holds the id's own row; the others may be empty."""

    id_column: str
    tables: tuple[str, ...]


FACTS: dict[Kind, Fact] = {
    "training": Fact("training_id", ("experiment", "training_curve")),
    "evaluation": Fact(
        "evaluation_id",
        (
            "evaluation",
            "prediction",
            "metric",
            "decision_rule",
            "gate",
            "mc_dropout",
            "subgroup_metric",
            "reliability",
            "review_flag",
            "conformal",
        ),
    ),
    "variant": Fact("variant_id", ("variant",)),
    "benchmark": Fact("run_id", ("benchmark",)),
    "fidelity": Fact("fidelity_id", ("fidelity",)),
}


@dataclass(frozen=True)
class Table:
    """Columns with their Arrow types in the order of the migration; `required` ones are NOT NULL; `key` is unique."""

    name: str
    arrow: Any  # pa.Schema
    required: frozenset[str]
    key: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        return list(self.arrow.names)


@cache
def tables() -> dict[str, Table]:
    """Every landing table by name."""
    with _one_at_a_time:
        return {name: _described(_empty(), name) for fact in FACTS.values() for name in fact.tables}


@cache
def _empty() -> duckdb.DuckDBPyConnection:
    """The database in memory, kept: dozens of migrations take half a second, and every landing asks it."""
    con = duckdb.connect(":memory:")
    migrate(con)
    return con


def _described(con: duckdb.DuckDBPyConnection, name: str) -> Table:
    arrow = con.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table().schema
    constraints = con.execute(
        "SELECT constraint_type, constraint_column_names FROM duckdb_constraints() WHERE table_name = ?",
        [name],
    ).fetchall()
    key = next(tuple(columns) for kind, columns in constraints if kind == "PRIMARY KEY")
    required = {column for kind, columns in constraints if kind == "NOT NULL" for column in columns}
    return Table(name, arrow, frozenset(required | set(key)), key)


def check(landing: dict[str, Any]) -> None:
    """Insert Arrow tables into an empty database: raises BadInput where a row breaks a CHECK of the migrations.

    Told when results are written, not when they are loaded, so that whatever has landed can be loaded.
    """
    with _one_at_a_time:
        con = _empty()
        con.begin()
        try:
            for name, table in landing.items():
                insert(con, name, table)
        finally:
            con.rollback()  # what it refuses must not break a key of what comes later, nor what it takes


def insert(con: duckdb.DuckDBPyConnection, name: str, table: Any) -> None:
    """Append an Arrow table by column name; columns it lacks become NULL."""
    con.register("incoming", table)
    try:
        con.execute(f"INSERT INTO {name} BY NAME SELECT * FROM incoming")
    except (
        duckdb.ConstraintException,
        duckdb.BinderException,
        duckdb.ConversionException,
    ) as error:
        raise BadInput(f"Table {name} refuses a row: {first_line(error)}.") from error
    finally:
        with contextlib.suppress(
            duckdb.Error
        ):  # refused in an aborted transaction, whose rollback drops it anyway
            con.unregister("incoming")
