"""Whether the warehouse is sound and current."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb

from tasks.runtime.errors import BadInput, Locked
from warehouse.comparison import pools
from warehouse.connect import check_place, first_line, reading, warehouse_path
from warehouse.schema import FACTS, digests, recorded_digests, sql_files

WAIT_SECONDS = 3.0
# Keys of tables without an index that the loader fills.
FILLED = {
    "cost": ("evaluation_id", "label", "decision"),
    "decision_count": ("evaluation_id", "rule"),
    "pair_metric": ("evaluation_4bit", "evaluation_8bit", "rule", "metric"),
    "reference_metric": ("evaluation_id", "reference_evaluation", "rule", "metric"),
}
# The audits that are no SQL files, and what a row of each is.
COMPUTED = {
    "duplicate_keys": (
        "One row per key that occurs twice, and per text with two labels in one evaluation."
    ),
    "pairs_are_reproduced": "One row per figure of a pair that predictions do not give again.",
    "pools_are_reproduced": (
        "One row per figure of a pool, or bound of a gate, that predictions do not give again."
    ),
}


def examine(path: Path) -> dict[str, int] | None:
    """Offending rows by audit; None if another version made the tables or views of the file, which
    the next load brings up to date. Empty where there is no file yet. Changes nothing.

    Raises BadInput for a file that is not a warehouse, Locked if it is in use.
    """
    try:
        check_place(path)
        if not path.is_file():
            return {}
        with reading(path, WAIT_SECONDS) as con:
            return run_audits(con) if _is_current(con) else None
    except duckdb.Error as error:
        raise BadInput(
            f"{path} cannot be used as a warehouse ({first_line(error)}); move it away, "
            "and the next sweep creates a new one."
        ) from error


def bring_up_to_date(path: Path | None = None) -> None:
    """Give a warehouse the tables and views of this version, and the figures of pools that are
    missing; a current one is opened for reading only.
    """
    with reading(path) as con:
        is_current = _is_current(con) and pools.is_current(con)
    if not is_current:
        from warehouse.rebuild import current  # NumPy comes with it

        with current(path) as con:
            pools.refresh(con)


def refuse_unusable() -> None:
    """Raise BadInput for a warehouse that is damaged, or cannot be where it is named; none yet is
    fine, and so is one that is in use.
    """
    path = warehouse_path()
    check_place(path)
    if path.is_file():
        with contextlib.suppress(Locked), reading(path, wait=0.0) as con:
            _is_current(con)


def _is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the tables and views are those of this version."""
    return recorded_digests(con) == digests()


def run_audits(con: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Number of offending rows by audit; all zero on a sound warehouse.

    `warehouse/audits/<name>.sql` shows them. Of those of COMPUTED, keys are read from the tables'
    declaration, and intervals and bands are computed again, which SQL cannot.
    """
    from warehouse.comparison import reproduced  # NumPy comes with it

    queries = {audit.name: audit.text for audit in sql_files("audits")}
    return {
        **{name: len(con.execute(query).fetchall()) for name, query in queries.items()},
        "duplicate_keys": len(_duplicate_keys(con)),
        "pairs_are_reproduced": len(reproduced.wrong_pairs(con)),
        "pools_are_reproduced": len(reproduced.wrong_pools(con)),
    }


def _duplicate_keys(con: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
    landed = {
        name: (fact.id_column, *key) for fact in FACTS.values() for name, key in fact.keys.items()
    }
    rows = con.execute(
        "SELECT evaluation_id, case_digest FROM prediction WHERE case_digest IS NOT NULL "
        "GROUP BY ALL HAVING count(DISTINCT label) > 1"
    ).fetchall()
    for name, key in {**landed, **FILLED}.items():
        columns = ", ".join(f'"{column}"' for column in key)
        rows += con.execute(
            f"SELECT {columns} FROM {name} GROUP BY ALL HAVING count(*) > 1"
        ).fetchall()
    return rows
