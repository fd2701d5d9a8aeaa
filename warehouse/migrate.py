"""Numbered migrations and views: SQL files, applied in order and recorded with their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import NamedTuple

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.comments import comments_text, write_comments
from warehouse.connect import utc_now

VIEWS = 0  # the version under which schema_migrations records views and comments


class SqlFile(NamedTuple):
    """A SQL file of this package; `name` is without `.sql`."""

    name: str
    text: str

    @property
    def version(self) -> int:
        """The number that a migration's name begins with."""
        return int(self.name[:4])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@cache
def sql_files(folder: str) -> Sequence[SqlFile]:
    """The SQL files of `warehouse/<folder>`, in order of their names; every load asks for them."""
    return tuple(
        sorted(
            SqlFile(file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
            for file in (files("warehouse") / folder).iterdir()
            if file.name.endswith(".sql")
        )
    )


def migrate(con: duckdb.DuckDBPyConnection, documented: bool = True) -> list[str]:
    """Apply pending migrations, each in a transaction, then the views, the comments on everything
    that is there (unless nobody will read them), and the figures of pairs and pools.

    Returns the names of the migrations that were applied. Raises BadInput if an applied migration
    has been edited since, or if a newer version of triage wrote the file.
    """
    applied = _applied(con)
    migrations = {file.version: file for file in sql_files("migrations")}
    for version, (name, sha256) in applied.items():
        if version != VIEWS:
            _check_applied(name, sha256, migrations.get(version))

    pending = [migrations[version] for version in sorted(migrations.keys() - applied.keys())]
    for file in pending:
        _apply(con, file.version, file, partial(con.execute, file.text))

    views = sql_files("views")
    views_file = SqlFile("views", "\n".join([*(view.text for view in views), comments_text()]))
    # Any migration may change a table that views read, so they are replaced after any.
    if pending or applied.get(VIEWS) != (views_file.name, views_file.sha256):
        _apply(con, VIEWS, views_file, partial(_show, con, views, documented))
        # Not within the transaction of _apply: it has one of its own.
        _refresh_pools(con)

    return [file.name for file in pending]


def _applied(con: duckdb.DuckDBPyConnection) -> dict[int, tuple[str, str]]:
    """Name and digest of what was applied to the file, by version; empty for a new file."""
    try:
        rows = con.execute(
            "SELECT version, name, sha256 FROM schema_migrations ORDER BY version"
        ).fetchall()
    except duckdb.CatalogException:
        return {}
    return {version: (name, sha256) for version, name, sha256 in rows}


def _check_applied(name: str, sha256: str, file: SqlFile | None) -> None:
    """Raise BadInput if an applied migration is not the `file` of this version of triage."""
    if file is None:
        raise BadInput(
            f"A newer version of triage made this warehouse (migration {name}); update triage."
        )
    if file.sha256 != sha256:
        raise BadInput(
            f"Migration {name} was edited after it had been applied to this warehouse; "
            "undo the edit and put the change into a new file, or delete the warehouse file and "
            "load the landing folder again."
        )


def _apply(
    con: duckdb.DuckDBPyConnection, version: int, file: SqlFile, run: Callable[[], object]
) -> None:
    """Do what a file says and record it, in one transaction."""
    con.begin()
    try:
        run()
        con.execute("DELETE FROM schema_migrations WHERE version = ?", [version])
        con.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?, ?, ?)",
            [version, file.name, file.sha256, utc_now(), duckdb.__version__],
        )
        con.commit()
    except BaseException:
        con.rollback()
        raise


def _show(con: duckdb.DuckDBPyConnection, views: Sequence[SqlFile], documented: bool) -> None:
    """Replace the views, with what depends on them."""
    for view in views:
        con.execute(view.text)
    if documented:
        write_comments(con, views)
    _count_decisions(con)
    _refresh_pairs(con)


def _count_decisions(con: duckdb.DuckDBPyConnection) -> None:
    """Count decisions as the new views do."""
    from warehouse.derived import count_decisions

    count_decisions(con)


def _refresh_pairs(con: duckdb.DuckDBPyConnection) -> None:
    """Compute the figures of pairs that new views show.

    Most opened files are current and need no SciPy.
    """
    from warehouse.comparison.refresh_pairs import refresh

    refresh(con)


def _refresh_pools(con: duckdb.DuckDBPyConnection) -> None:
    """Compute the figures of pools that new views show."""
    from warehouse.comparison.refresh_pools import refresh

    refresh(con)
