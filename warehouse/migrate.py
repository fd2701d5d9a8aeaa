"""Numbered migrations and views: SQL files of this package, applied in order and remembered by their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

import duckdb

from tasks.runtime.errors import BadInput
from warehouse import refresh_pairs
from warehouse.connect import utc_now

VIEWS = 0  # the version under which schema_migrations remembers the views


def sql_files(folder: str) -> list[tuple[str, str]]:
    """Name (without .sql) and text of the SQL files of `warehouse/<folder>`, in order of their names."""
    found: list[Traversable] = [
        f for f in (files("warehouse") / folder).iterdir() if f.name.endswith(".sql")
    ]
    return sorted((f.name.removesuffix(".sql"), f.read_text(encoding="utf-8")) for f in found)


def migrate(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Bring a file up to date: unapplied migrations, each in a transaction, then the views and the pairs that they see.
    Returns what was applied.

    Raises BadInput if an applied migration was edited since, or if a newer version of the program made the file.
    """
    applied = _applied(con)
    known = {int(name[:4]): (name, text, _sha256(text)) for name, text in sql_files("migrations")}
    for version, (name, sha256) in applied.items():
        if version != VIEWS and version not in known:
            raise BadInput(
                f"A newer version of triage made this warehouse (migration {name}); update triage."
            )
        if version != VIEWS and known[version][2] != sha256:
            raise BadInput(
                f"Migration {name} was edited after it had been applied to this warehouse; undo the edit and put the "
                "change into a new file, or delete the warehouse file and load the landing folder again."
            )
    done = []
    for version in sorted(known.keys() - applied.keys()):
        name, text, sha256 = known[version]
        _apply(con, version, name, text, sha256)
        done.append(name)
    views = "\n".join(text for _, text in sql_files("views"))
    if done or applied.get(VIEWS, ("", ""))[1] != _sha256(views):
        _apply(con, VIEWS, "views", views, _sha256(views), refresh_pairs.refresh)
    return done


def _applied(con: duckdb.DuckDBPyConnection) -> dict[int, tuple[str, str]]:
    there = con.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_migrations'"
    ).fetchone()
    if not there or not there[0]:
        return {}
    rows = con.execute(
        "SELECT version, name, sha256 FROM schema_migrations ORDER BY version"
    ).fetchall()
    return {version: (name, sha256) for version, name, sha256 in rows}


def _apply(
    con: duckdb.DuckDBPyConnection, version: int, name: str, text: str, sha256: str,
    then: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
) -> None:  # fmt: skip
    con.begin()
    try:
        con.execute(text)
        if then is not None:
            then(con)
        con.execute("DELETE FROM schema_migrations WHERE version = ?", [version])
        con.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?, ?, ?)",
            [version, name, sha256, utc_now(), duckdb.__version__],
        )
        con.commit()
    except BaseException:
        con.rollback()
        raise


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
