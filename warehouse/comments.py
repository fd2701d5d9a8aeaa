"""What tables, views and columns mean, from `comments.toml` and the head of each view's file.

The texts are COMMENT ON statements in the warehouse file, and the reference in README.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from warehouse.connect import quoted

if TYPE_CHECKING:
    import duckdb

    from warehouse.migrate import SqlFile

_IN_FILE = """
SELECT table_name, column_name, table_name IN (SELECT view_name FROM duckdb_views())
FROM duckdb_columns()
WHERE NOT internal AND database_name = current_database()
ORDER BY table_name, column_index
"""


@dataclass(frozen=True)
class Comments:
    """The texts by column, and by table and column; a table's text is under TABLE.

    `references`: the table that a column points to.
    """

    shared: Mapping[str, str]
    by_table: Mapping[str, Mapping[str, str]]
    references: Mapping[str, str]

    TABLE = "comment"

    def of_table(self, table: str) -> str | None:
        return self.by_table.get(table, {}).get(self.TABLE)

    def of_column(self, table: str, column: str) -> str | None:
        return self.by_table.get(table, {}).get(column, self.shared.get(column))


@cache
def comments_text() -> str:
    """The file `comments.toml`."""
    return (files("warehouse") / "comments.toml").read_text(encoding="utf-8")


@cache
def comments() -> Comments:
    """The texts of `comments.toml`."""
    content = tomllib.loads(comments_text())
    return Comments(content["columns"], content["table"], content["references"])


def head_of(view: SqlFile) -> str:
    """The comment at the head of a view's file, one line a paragraph."""
    lines = re.match(r"(--[^\n]*\n)*", view.text)
    assert lines is not None
    text = "\n".join(line[2:].strip() for line in lines[0].splitlines())
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def write_comments(con: duckdb.DuckDBPyConnection, views: Sequence[SqlFile]) -> None:
    """Describe every table, view and column of the file, inside the caller's transaction.

    Replacing a view drops its comments, so they are written after the views.
    """
    heads = {re.sub(r"^\d+_", "", view.name): head_of(view) for view in views}
    statements: list[str] = []
    described: set[str] = set()
    for table, column, is_view in con.execute(_IN_FILE).fetchall():
        if table not in described:
            described.add(table)
            kind = "VIEW" if is_view else "TABLE"
            text = heads.get(table) if is_view else comments().of_table(table)
            statements += _statement(kind, f'"{table}"', text)
        text = comments().of_column(table, column)
        statements += _statement("COLUMN", f'"{table}"."{column}"', text)

    con.execute("".join(statements))


def _statement(kind: str, name: str, text: str | None) -> list[str]:
    if not text:
        return []
    return [f"COMMENT ON {kind} {name} IS {quoted(text)};\n"]
