"""Which pools of pairs there are, and which of them, or of the gates' bounds, have no figures yet.

DuckDB alone, so that a command which finds all of them loads no NumPy.
"""

from __future__ import annotations

from collections.abc import Collection

import duckdb

_POOLS = """
SELECT pool, list_sort(list([evaluation_4bit, evaluation_8bit])) AS pairs
FROM pooled_pair_of($ids)
GROUP BY pool
ORDER BY pool
"""
_OF_LAST_SWEEP = """
SELECT list(id ORDER BY id) FROM study_member
WHERE kind = 'evaluation' AND study = (SELECT study FROM study LIMIT 1)
"""
LOOKS_WITHOUT_BOUNDS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) AS ids
FROM gate_bounds
GROUP BY looks
HAVING count(*) FILTER (adjusted_method IS NULL) > 0
ORDER BY looks
"""


def is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether no figure is missing."""
    missing = without_figures(con, pools_to_store(con))
    return not missing and not con.execute(LOOKS_WITHOUT_BOUNDS).fetchall()


def pools_to_store(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The pools of all evaluations, and those of the study of the last sweep."""
    ((of_last_sweep,),) = con.execute(_OF_LAST_SWEEP).fetchall()
    pools = pools_of(con, None)
    return pools | (pools_of(con, of_last_sweep) if of_last_sweep else {})


def pools_of(con: duckdb.DuckDBPyConnection, only: Collection[str] | None) -> dict[str, list[str]]:
    """Pools with their evaluations, those of a pair side by side."""
    ids = None if only is None else sorted(only)
    rows = con.execute(_POOLS, {"ids": ids}).fetchall()
    return {pool: [id for pair in pairs for id in pair] for pool, pairs in rows}


def without_figures(
    con: duckdb.DuckDBPyConnection, pools: dict[str, list[str]]
) -> dict[str, list[str]]:
    stored = {pool for (pool,) in con.execute("SELECT DISTINCT pool FROM pooled_metric").fetchall()}
    return {pool: ids for pool, ids in pools.items() if pool not in stored}
