"""Is the warehouse sound? Looks only, changes nothing."""

from __future__ import annotations

from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput
from warehouse.connect import first_line, reading, writing
from warehouse.migrate import migrate, sql_files

WAIT_SECONDS = 3.0


def examine(path: Path) -> dict[str, int] | None:
    """Offending rows by audit; None if the file waits for migrations, which the next load applies.

    Where there is no file yet, migrations and audits are rehearsed in memory. Raises BadInput for a file that is no
    warehouse of ours, Locked if it is in use.
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
            f"{path} cannot be used as a warehouse ({first_line(error)}); move it away, and the next sweep makes a new one."
        ) from error


def bring_up_to_date(path: Path | None = None) -> None:
    """Apply the migrations and views that a warehouse of an older version waits for; a current one is only looked at."""
    with reading(path) as con:
        current = _is_current(con)
    if not current:
        with writing(path) as con:
            migrate(con)


def _is_current(con: duckdb.DuckDBPyConnection) -> bool:
    try:
        migrate(con)
    except (
        duckdb.InvalidInputException
    ):  # the connection is read-only, so there was something to apply
        return False
    return True


def run_audits(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Number of offending rows by audit; all zero on a sound warehouse. `warehouse/audits/<name>.sql` shows them."""
    return {name: len(con.execute(text).fetchall()) for name, text in sql_files("audits")}
