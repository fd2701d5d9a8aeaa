"""Whether the warehouse is sound and current: audits, and pending migrations."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput, Locked
from warehouse.comparison import pools
from warehouse.connect import first_line, reading, warehouse_path, writing
from warehouse.migrate import migrate, sql_files
from warehouse.place import check_place

WAIT_SECONDS = 3.0
# The audits that are no SQL files, and what a row of each is.
REPRODUCED = {
    "pairs_are_reproduced": "One row per figure of a pair that predictions do not give again.",
    "pools_are_reproduced": (
        "One row per figure of a pool, or bound of a gate, that predictions do not give again."
    ),
}


def examine(path: Path) -> dict[str, int] | None:
    """Offending rows by audit; None if the file waits for migrations, which the next load applies.

    Changes nothing.

    Where there is no file yet, migrations and audits are rehearsed in memory. Raises BadInput for a
    file that is not a warehouse, Locked if it is in use.
    """
    try:
        check_place(path)
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
    """Apply pending migrations and views, and make the figures of pools that are missing; a current
    warehouse is opened for reading only.
    """
    with reading(path) as con:
        is_current = _is_current(con) and pools.is_current(con)
    if not is_current:
        from warehouse.comparison import refresh_pools  # NumPy comes with it

        with writing(path) as con:
            migrate(con)
            refresh_pools.refresh(con)


def refuse_unusable(path: Path | None = None) -> None:
    """Raise BadInput for a warehouse that is damaged, or cannot be where it is named; none yet is
    fine, and so is one that is in use.
    """
    path = path or warehouse_path()
    check_place(path)
    if path.is_file():
        with contextlib.suppress(Locked), reading(path, wait=0.0) as con:
            _is_current(con)


def _is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether nothing is pending, for a read-only connection, which refuses to apply what is."""
    try:
        migrate(con)
    except duckdb.InvalidInputException:
        return False
    return True


def run_audits(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Number of offending rows by audit; all zero on a sound warehouse."""
    names = [audit.name for audit in sql_files("audits")]
    return {name: run_audit(con, name) for name in (*names, *REPRODUCED)}


def run_audit(con: duckdb.DuckDBPyConnection, name: str) -> int:
    """Number of offending rows of one audit.

    `warehouse/audits/<name>.sql` shows them; those of REPRODUCED compute intervals and bands
    again, which SQL cannot.
    """
    if name in REPRODUCED:
        from warehouse.comparison import reproduced  # NumPy comes with it

        audits = {
            "pairs_are_reproduced": reproduced.wrong_pairs,
            "pools_are_reproduced": reproduced.wrong_pools,
        }
        return len(audits[name](con))

    queries = {audit.name: audit.text for audit in sql_files("audits")}
    return len(con.execute(queries[name]).fetchall())
