"""Forgets a study: its sweeps, and the results that no other study holds.

Landing folders go first: rows without a folder are found again by the next attempt, while a folder
without rows would be loaded again, as a result of no study.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from tasks.runtime.store import remove
from warehouse.comparison import pairs, pools
from warehouse.connect import reading, transaction
from warehouse.fill import note_judgings
from warehouse.rebuild import current
from warehouse.schema import FACTS

_HELD = """
SELECT id, kind, id IN (SELECT id FROM study_member WHERE study <> $study) AS is_shared
FROM study_member
WHERE study = $study
ORDER BY id
"""
# Tables that the loader fills for an evaluation.
DERIVED = tuple((table, "evaluation_id") for table in ("cost", "decision_count", "adjusted_bound"))
_SWEEPS = "SELECT sweep_id FROM sweep WHERE study = ? ORDER BY sweep_id"


@dataclass(frozen=True)
class Forgotten:
    """A study, the ids of the results that it alone holds, its sweeps, and how many results it
    shares with other studies.
    """

    study: str
    ids: tuple[str, ...]
    sweeps: tuple[str, ...]
    shared: int


def what_would_be_forgotten(study: str) -> Forgotten:
    """What `forget` would forget."""
    with reading() as con:
        return _held_alone(con, study)


def forget(study: str, landing: Path, database: Path | None = None) -> Forgotten:
    """Remove the landing folders and rows of a study's sweeps, and of what it alone holds.

    Raises Locked if another process lands one of them, or uses the warehouse.
    """
    with current(database, root=landing) as con:
        forgotten = _held_alone(con, study)
        folders = [landing / id for id in (*forgotten.sweeps, *forgotten.ids)]
        remove([folder for folder in folders if folder.is_dir()])

        landed = [(table, fact.id_column) for fact in FACTS.values() for table in fact.tables]
        with transaction(con):
            for table, column in (*landed, ("landed", "id"), ("sweep_member", "id"), *DERIVED):
                con.execute(
                    f"DELETE FROM {table} WHERE {column} IN (SELECT unnest(?::VARCHAR[]))",
                    [[*forgotten.sweeps, *forgotten.ids]],
                )
            note_judgings(con)
            pairs.refresh(con)
        # After the commit: it begins a transaction, and DuckDB has none within another.
        pools.refresh(con)
    return forgotten


def _held_alone(con: duckdb.DuckDBPyConnection, study: str) -> Forgotten:
    rows = con.execute(_HELD, {"study": study}).fetchall()
    sweeps = con.execute(_SWEEPS, [study]).fetchall()
    return Forgotten(
        study,
        ids=tuple(id for id, _, is_shared in rows if not is_shared),
        sweeps=tuple(id for (id,) in sweeps),
        shared=sum(is_shared for _, _, is_shared in rows),
    )
