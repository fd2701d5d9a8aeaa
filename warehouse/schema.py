"""Tables, views and comments as the SQL files of this folder declare them, and what lands in which.

`schema.sql` declares each column once. The file of a warehouse records a digest of its tables and
one of its views and comments: views are replaced where theirs differs, and a file whose tables
differ is built again from the landing folders (`rebuild.py`).
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import first_line, quoted, utc_now

if TYPE_CHECKING:
    import pyarrow as pa

# Versions under which schema_migrations records digests. Earlier programs numbered their
# migrations up to 144, and say of a higher one that a newer version made the file. Raise TABLES
# with a change of the tables, so that this program's version says so, too.
TABLES = 1004
VIEWS = 0

# What a column means whose name is that of a figure with such an ending.
MEANINGS = {
    "low": "lower end of the 95 % interval of {figure}",
    "high": "upper end of the 95 % interval of {figure}",
    "verdict": "whether the 95 % interval of {figure} is 'not worse', 'within' or 'worse' at a margin "
    "of 0.02, or 'cannot conclude'",
    "mean": "mean of {figure} over the seeds",
    "sd": "standard deviation of {figure} between the seeds",
}
Kind = str  # a key of FACTS


@dataclass(frozen=True)
class FactTable:
    """What is landed together under one id.

    `keys` names the tables, each with the columns that make a row's key beside the id. The first
    table has the row of the id; the others may be empty.
    """

    id_column: str
    keys: Mapping[str, tuple[str, ...]]

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(self.keys)


FACTS: dict[Kind, FactTable] = {
    "training": FactTable(
        "training_id", {"experiment": (), "training_curve": ("iteration", "split")}
    ),
    "evaluation": FactTable(
        "evaluation_id",
        {
            "evaluation": (),
            "prediction": ("case_id",),
            "calibration_prediction": ("case_id",),
            "metric": ("rule", "metric"),
            "decision_rule": ("rule",),
            "gate": ("gate",),
            "mc_dropout": ("case_id",),
            "subgroup_metric": ("field", "subgroup", "metric"),
            "reliability": ("low",),
            "net_benefit": ("threshold",),
            "review_flag": ("score",),
            "conformal": (),
        },
    ),
    "variant": FactTable("variant_id", {"variant": ()}),
    "benchmark": FactTable("run_id", {"benchmark": ("name", "case", "metric")}),
    "fidelity": FactTable("fidelity_id", {"fidelity": ("bits", "distribution")}),
    "search": FactTable("search_id", {"trial": ("number",)}),
    "sweep": FactTable("sweep_id", {"sweep": (), "sweep_member": ("id",)}),
    "dataset": FactTable("dataset_id", {"dataset": (), "dataset_set": ("name",)}),
    "look": FactTable("look_id", {"look": ()}),
}


class SqlFile(NamedTuple):
    """A SQL file of this package; `name` is without `.sql`."""

    name: str
    text: str

    @property
    def head(self) -> str:
        """The comment at its head, one line a paragraph."""
        lines = re.match(r"(--[^\n]*\n)*", self.text)
        assert lines is not None
        text = "\n".join(line[2:].strip() for line in lines[0].splitlines())
        return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


@cache
def sql_files(folder: str) -> tuple[SqlFile, ...]:
    """The SQL files of `warehouse/<folder>`, in order of their names."""
    return tuple(
        sorted(
            SqlFile(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
            for file in (files("warehouse") / folder).iterdir()
            if file.name.endswith(".sql")
        )
    )


@cache
def schema_sql() -> str:
    return (files("warehouse") / "schema.sql").read_text(encoding="utf-8")


@cache
def create_statements() -> str:
    """The CREATE statements of `schema.sql`."""
    return "\n".join(re.findall(r"^CREATE TABLE .*?^\);", schema_sql(), re.DOTALL | re.MULTILINE))


@cache
def own_tables() -> frozenset[str]:
    """The names of all tables, also of those that the loader fills."""
    return frozenset(re.findall(r"^CREATE TABLE (\w+)", create_statements(), re.MULTILINE))


@cache
def digests() -> dict[int, str]:
    """What the file of this version of triage records in schema_migrations."""
    views = "\n".join([schema_sql(), *(view.text for view in sql_files("views"))])
    return {
        TABLES: hashlib.sha256(" ".join(create_statements().split()).encode()).hexdigest(),
        VIEWS: hashlib.sha256(views.encode()).hexdigest(),
    }


def recorded_digests(con: duckdb.DuckDBPyConnection) -> dict[int, str]:
    """The digests of a file, by version; empty for a new one.

    Raises BadInput where a newer version of triage made it.
    """
    try:
        recorded = dict(con.execute("SELECT version, sha256 FROM schema_migrations").fetchall())
    except duckdb.CatalogException:
        return {}

    if max(recorded, default=0) > TABLES:
        raise BadInput("A newer version of triage made this warehouse; update triage.")
    return recorded


def record(con: duckdb.DuckDBPyConnection, version: int, name: str) -> None:
    """Note in the file that its tables or views are those of this version."""
    con.execute(
        "INSERT OR REPLACE INTO schema_migrations VALUES (?, ?, ?, ?, ?)",
        [version, name, digests()[version], utc_now(), duckdb.__version__],
    )


def replace_views(con: duckdb.DuckDBPyConnection) -> None:
    """Replace the views and every comment, inside the caller's transaction.

    A view has the comment at the head of its file. A column without a comment of its own has the
    one that stands first in `schema.sql` and the views for its name, else the one that its name gives.
    """
    views = sql_files("views")
    comments = "\n".join(line for line in schema_sql().splitlines() if line.startswith("COMMENT"))
    declared = "\n".join([comments, *(view.text for view in views)])
    con.execute(declared)

    statements = [
        f"COMMENT ON VIEW {view.name.partition('_')[2]} IS {quoted(view.head)};" for view in views
    ]
    described = r"^COMMENT ON COLUMN (\w+)\.\"?(\w+)\"? IS (.*);$"
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    of_name: dict[str, str] = {}
    for table, column, text in re.findall(described, declared, re.MULTILINE):
        texts[table][column] = text
        of_name.setdefault(column, text)

    rows = con.execute(
        "SELECT table_name, list(column_name) FROM duckdb_columns() "
        "WHERE NOT internal AND database_name = current_database() GROUP BY table_name"
    ).fetchall()
    for table, columns in rows:
        of_table = {**of_name, **texts[table]}
        for column in columns:
            text = of_table.get(column) or _comment_by_name(column, columns, of_table)
            if text and column not in texts[table]:
                statements.append(f'COMMENT ON COLUMN "{table}"."{column}" IS {text};')
    con.execute("\n".join(statements))
    record(con, VIEWS, "views")


def _comment_by_name(column: str, columns: list[str], texts: Mapping[str, str]) -> str | None:
    """The comment, as a string literal, of a column that is named after others of its table: an end
    of an interval, a difference, or the 8-bit side of what is described at 4 bits; or after a cell
    of the confusion matrix.
    """
    label, is_cell, decision = column.upper().partition("_AS_")
    if is_cell:
        return quoted(f"cases labelled {label} that the rule decides {decision}")
    name, _, ending = column.rpartition("_")
    if ending == "8bit" and f"{name}_4bit" in texts:
        return texts[f"{name}_4bit"].replace("4", "8")
    if ending == "diff":
        sides = (f"{name}_4bit", f"{name}_8bit")
        if sides[0] not in columns:
            sides = (name, f"reference_{name}")
        return quoted(f"{sides[0]} - {sides[1]}, on the same cases")
    if ending in MEANINGS:
        figure = f"{name}_diff" if f"{name}_diff" in columns else name
        return quoted(MEANINGS[ending].format(figure=figure))
    if (of_reference := column.removeprefix("reference_")) in columns:
        return quoted(f"{of_reference} of the reference")
    return None


@cache
def _empty() -> duckdb.DuckDBPyConnection:
    """The tables without rows, in memory. Each use takes a cursor, since threads share it."""
    con = duckdb.connect(":memory:")
    con.execute(create_statements())
    return con


@cache
def tables() -> dict[str, pa.Schema]:
    """The columns and Arrow types of every landing table, by its name."""
    with _empty().cursor() as con:
        return {
            name: con.sql(f"FROM {name} LIMIT 0").to_arrow_table().schema
            for fact in FACTS.values()
            for name in fact.tables
        }


def check(landing: dict[str, pa.Table]) -> None:
    """Raise BadInput if a row of these Arrow tables breaks a CHECK of the tables.

    Checked when results are written, not when they are loaded, so that everything that has landed
    can be loaded.
    """
    with _empty().cursor() as con:
        con.begin()
        try:
            for name, table in landing.items():
                insert(con, name, table)
        finally:
            con.rollback()


def refuse_newer_columns(name: str, landed_columns: Iterable[str]) -> None:
    """Raise BadInput for a landed column of a newer version."""
    if unknown := sorted(set(landed_columns) - set(tables()[name].names)):
        raise BadInput(
            f"Table {name} has a column {unknown[0]!r} of a newer version of triage; update triage."
        )


def refuse_equal_keys(name: str, fact: FactTable, table: pa.Table) -> None:
    """Raise BadInput where the key of a row occurs twice: no index keeps it."""
    key = [fact.id_column, *fact.keys[name]]
    counts = table.group_by(key).aggregate([([], "count_all")]).to_pylist()
    for row in counts:
        if row["count_all"] > 1:
            twice = ", ".join(str(row[column]) for column in key)
            raise BadInput(
                f"Table {name} refuses a row: {', '.join(key)} = {twice} is there twice."
            )


def insert(con: duckdb.DuckDBPyConnection, name: str, incoming_rows: pa.Table) -> None:
    """Append an Arrow table by column name; columns that it lacks become NULL.

    Raises BadInput for a row that the table refuses.
    """
    if not incoming_rows.num_rows:
        return
    try:
        # DuckDB finds the table by the name of this variable.
        con.execute(f"INSERT INTO {name} BY NAME FROM incoming_rows")
    except (
        duckdb.ConstraintException,
        duckdb.BinderException,
        duckdb.ConversionException,
    ) as error:
        raise BadInput(f"Table {name} refuses a row: {first_line(error)}.") from error


def insert_rows(con: duckdb.DuckDBPyConnection, name: str, rows: list[dict[str, Any]]) -> None:
    """As `insert`, for rows that all have the same columns."""
    import pyarrow as pa  # a command that only reads does without

    insert(con, name, pa.Table.from_pylist(rows))
