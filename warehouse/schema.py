"""The landing tables as the migrations define them: columns, Arrow types, required columns, keys.

Read from an empty in-memory database to which the migrations were applied, so that a column is
declared once, in SQL.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import first_line
from warehouse.migrate import migrate

if TYPE_CHECKING:
    import pyarrow as pa

# An index would double the size of a prediction, and is rewritten at each closing of the file
# after a load. The loader refuses a key that occurs twice in a landing
# folder, and an audit finds one.
KEYS_WITHOUT_INDEX = {
    "experiment": ("training_id",),
    "evaluation": ("evaluation_id",),
    "prediction": ("evaluation_id", "case_id"),
    "training_curve": ("training_id", "iteration", "split"),
    "metric": ("evaluation_id", "rule", "metric"),
    "decision_rule": ("evaluation_id", "rule"),
    "gate": ("evaluation_id", "gate"),
    "mc_dropout": ("evaluation_id", "case_id"),
    "subgroup_metric": ("evaluation_id", "field", "subgroup", "metric"),
    "reliability": ("evaluation_id", "low"),
    "net_benefit": ("evaluation_id", "threshold"),
    "review_flag": ("evaluation_id", "score"),
    "conformal": ("evaluation_id",),
    "cost": ("evaluation_id", "label", "decision"),
    "decision_count": ("evaluation_id", "rule"),
    "pair_metric": ("evaluation_4bit", "evaluation_8bit", "rule", "metric"),
    "reference_metric": ("evaluation_id", "reference_evaluation", "rule", "metric"),
}

# All threads share the connection of _empty(), which two must not use at once.
_one_at_a_time = threading.Lock()
Kind = Literal[
    "training",
    "evaluation",
    "variant",
    "benchmark",
    "fidelity",
    "search",
    "sweep",
    "dataset",
    "look",
]


@dataclass(frozen=True)
class FactTable:
    """What is landed together under one id.

    The first table has the row of the id; the others may be empty.
    """

    id_column: str
    tables: tuple[str, ...]


FACTS: dict[Kind, FactTable] = {
    "training": FactTable("training_id", ("experiment", "training_curve")),
    "evaluation": FactTable(
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
            "net_benefit",
            "review_flag",
            "conformal",
        ),
    ),
    "variant": FactTable("variant_id", ("variant",)),
    "benchmark": FactTable("run_id", ("benchmark",)),
    "fidelity": FactTable("fidelity_id", ("fidelity",)),
    "search": FactTable("search_id", ("trial",)),
    "sweep": FactTable("sweep_id", ("sweep", "sweep_member")),
    "dataset": FactTable("dataset_id", ("dataset", "dataset_set")),
    "look": FactTable("look_id", ("look",)),
}


@dataclass(frozen=True)
class Table:
    """Columns with their Arrow types in the order of the migration.

    `required` ones are NOT NULL, `key` is unique.
    """

    name: str
    arrow: pa.Schema
    required: frozenset[str]
    key: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        return list(self.arrow.names)


@cache
def tables() -> dict[str, Table]:
    """Every landing table by name."""
    with _one_at_a_time:
        return {name: _table(_empty(), name) for fact in FACTS.values() for name in fact.tables}


@cache
def _empty() -> duckdb.DuckDBPyConnection:
    """An empty database in memory.

    The migrations take half a second, and every landing needs it.
    """
    con = duckdb.connect(":memory:")
    migrate(con, documented=False)
    return con


def _table(con: duckdb.DuckDBPyConnection, name: str) -> Table:
    arrow = con.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table().schema
    constraints = con.execute(
        """
        SELECT constraint_type, constraint_column_names
        FROM duckdb_constraints()
        WHERE table_name = ?
        """,
        [name],
    ).fetchall()

    indexed = (tuple(columns) for kind, columns in constraints if kind == "PRIMARY KEY")
    key = KEYS_WITHOUT_INDEX.get(name) or next(indexed)
    not_null = {column for kind, columns in constraints if kind == "NOT NULL" for column in columns}
    return Table(name, arrow, frozenset(not_null | set(key)), key)


def check(landing: dict[str, pa.Table]) -> None:
    """Raise BadInput if a row of these Arrow tables breaks a CHECK of the migrations.

    Checked when results are written, not when they are loaded, so that everything that has landed
    can be loaded.
    """
    with _one_at_a_time:
        con = _empty()
        con.begin()
        try:
            for name, table in landing.items():
                insert(con, name, table)
        finally:
            # Neither what it refuses nor what it takes may collide with the keys of a later
            # landing.
            con.rollback()


def refuse_newer_columns(name: str, landed_columns: Iterable[str], columns: Iterable[str]) -> None:
    """Raise BadInput for a landed column of a newer version; `columns`: those of the table."""
    if unknown := sorted(set(landed_columns) - set(columns)):
        raise BadInput(
            f"Table {name} has a column {unknown[0]!r} of a newer version of triage; update triage."
        )


def _refuse_equal_keys(name: str, table: pa.Table) -> None:
    """Raise BadInput where a key occurs twice, for a table that no index keeps."""
    key = KEYS_WITHOUT_INDEX.get(name, ())
    if not key or not set(key) <= set(table.column_names):
        return

    columns = [table.column(column).to_pylist() for column in key]
    keys = list(zip(*columns, strict=True))
    if len(set(keys)) < len(keys):
        ((twice, _),) = Counter(keys).most_common(1)
        values = ", ".join(map(str, twice))
        raise BadInput(f"Table {name} refuses a row: {', '.join(key)} = {values} is there twice.")


def insert(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    """Append an Arrow table by column name; columns that it lacks become NULL.

    Raises BadInput for a row that the table refuses, and for a column of a newer version.
    """
    columns = [column for (column, *_) in con.execute(f"DESCRIBE {name}").fetchall()]
    refuse_newer_columns(name, table.column_names, columns)
    if not table.num_rows:
        return

    _refuse_equal_keys(name, table)
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
        # A refused row aborts the transaction, in which this fails; the rollback drops the view
        # anyway.
        with contextlib.suppress(duckdb.Error):
            con.unregister("incoming")
