"""Whether the warehouse is sound and current: audits, and pending migrations."""

from __future__ import annotations

from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import first_line, reading, writing
from warehouse.migrate import migrate, sql_files

WAIT_SECONDS = 3.0


def examine(path: Path) -> dict[str, int] | None:
    """Offending rows by audit; None if the file waits for migrations, which the next load applies.

    Changes nothing.

    Where there is no file yet, migrations and audits are rehearsed in memory. Raises BadInput for a
    file that is not a warehouse, Locked if it is in use.
    """
    try:
        if not path.is_file():
            with duckdb.connect(":memory:") as con:
                migrate(con)
                return run_audits(con)
        with reading(path, WAIT_SECONDS) as con:
            return run_audits(con) if _is_current(con) else None
    except duckdb.Error as error:
        raise BadInput(
            f"{path} cannot be used as a warehouse ({first_line(error)}); move it away, "
            "and the next sweep creates a new one."
        ) from error


def bring_up_to_date(path: Path | None = None) -> None:
    """Apply pending migrations and views; a current warehouse is opened for reading only."""
    with reading(path) as con:
        is_current = _is_current(con)
    if not is_current:
        with writing(path) as con:
            migrate(con)


def _is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether nothing is pending, for a read-only connection, which refuses to apply what is."""
    try:
        migrate(con)
    except duckdb.InvalidInputException:
        return False
    return True


def run_audits(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Number of offending rows by audit; all zero on a sound warehouse.

    `warehouse/audits/<name>.sql` shows them.
    """
    return {audit.name: len(con.execute(audit.text).fetchall()) for audit in sql_files("audits")}
