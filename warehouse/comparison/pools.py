"""Which pools of pairs there are, and keeping `pooled_metric` and `adjusted_bound` equal to what the
pairs and models of now give.

Both tables name by a digest what they were made from, and the views show figures of this digest
alone, so that an old figure is never shown. Pools of many cases are made at the end of a sweep or of
a load rather than after each landing.

DuckDB alone at the top, so that a command which finds all figures loads no NumPy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, fields
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from warehouse.comparison.pooled import Pooled

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
_LOOKS_WITHOUT_BOUNDS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) AS ids
FROM gate_bounds
GROUP BY looks
HAVING count(*) FILTER (adjusted_method IS NULL) > 0
ORDER BY looks
"""
# Cases of all models on one set up to which its figures are made after each landing: in a third of
# a second. Those of sixty models on 1,500 cases take three seconds.
AT_EACH_LANDING = 20_000

_SETS_TO_JUDGE = """
WITH new AS (SELECT unnest($ids::VARCHAR[])),
touched AS (
    SELECT set_digest, false AS is_over
    FROM evaluation
    WHERE evaluation_id IN (FROM new) OR training_id IN (FROM new)
    UNION
    SELECT set_digest, finished_at IS NOT NULL
    FROM sweep
    JOIN sweep_member USING (sweep_id)
    JOIN evaluation ON evaluation_id = id
    WHERE sweep_id IN (FROM new)
)
SELECT set_digest
FROM touched JOIN evaluation USING (set_digest)
GROUP BY set_digest
HAVING bool_or(is_over) OR sum(cases) <= $most
"""
_ON_THESE_SETS = """
SELECT evaluation_id FROM evaluation WHERE set_digest IN (SELECT unnest($sets::VARCHAR[]))
"""


def is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether no figure is missing."""
    missing = without_figures(con, pools_to_store(con))
    return not missing and not con.execute(_LOOKS_WITHOUT_BOUNDS).fetchall()


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


def refresh(con: duckdb.DuckDBPyConnection, sets: Collection[str] | None = None) -> None:
    """Make the figures that are missing, in a transaction; with `sets`, those on the cases that
    these digests name.
    """
    con.begin()
    try:
        pools = pools_to_store(con)
        con.execute(
            # A pool that has changed has a new name, and the rows of the old one go.
            "DELETE FROM pooled_metric WHERE pool NOT IN (SELECT unnest($pools::VARCHAR[]))",
            {"pools": list(pools)},
        )

        missing = without_figures(con, pools)
        looks = dict(con.execute(_LOOKS_WITHOUT_BOUNDS).fetchall())
        if sets is not None:
            rows = con.execute(_ON_THESE_SETS, {"sets": list(sets)}).fetchall()
            present_ids = {id for (id,) in rows}
            # All evaluations of a pool are on one set, as are those of looks: the first tells it.
            missing = {pool: ids for pool, ids in missing.items() if ids[0] in present_ids}
            looks = {digest: ids for digest, ids in looks.items() if ids[0] in present_ids}

        for pool, ids in missing.items():
            _insert_pool(con, pool, ids)
        for digest, ids in looks.items():
            _insert_bounds(con, digest, ids)

        con.commit()
    except BaseException:
        con.rollback()
        raise


def refresh_after(con: duckdb.DuckDBPyConnection, ids: Collection[str]) -> None:
    """Make the figures that landings lack; those that take long wait for the end of their sweep, or
    for the next command that shows them.
    """
    values = {"ids": list(ids), "most": AT_EACH_LANDING}
    sets = [digest for (digest,) in con.execute(_SETS_TO_JUDGE, values).fetchall()]
    if sets:
        refresh(con, sets)


def missing_rows(
    con: duckdb.DuckDBPyConnection, only: Collection[str] | None = None
) -> dict[str, list[Pooled]]:
    """The figures that `quantization_summary_of(only)` lacks, by pool; nothing is written."""
    missing = without_figures(con, pools_of(con, only))
    return {pool: pool_rows(con, ids) for pool, ids in missing.items()}


def pool_rows(con: duckdb.DuckDBPyConnection, ids: list[str]) -> list[Pooled]:
    """The figures of a pool; `ids` are its evaluations, those of a pair side by side."""
    from warehouse.comparison.cells import judged_cases  # NumPy comes with both
    from warehouse.comparison.pooled import PooledPair, pooled

    cases = judged_cases(con, ids)
    if not cases.units:
        return []

    rows = con.execute(
        """
        SELECT evaluation_id, base_model, recipe, seed_group, seed, coalesce(beats_constant, false)
        FROM evaluation
        JOIN experiment USING (training_id)
        JOIN seed_group USING (evaluation_id)
        LEFT JOIN informed USING (evaluation_id)
        WHERE evaluation_id IN (SELECT unnest($ids))
        """,
        {"ids": ids},
    ).fetchall()
    by_id = {id: row for id, *row in rows}

    pairs = []
    for at_4bit, at_8bit in zip(ids[0::2], ids[1::2], strict=True):
        base_model, recipe, seed_group, seed, is_informed = by_id[at_4bit]
        # One informed model is enough.
        is_informed = is_informed or by_id[at_8bit][-1]
        pairs.append(PooledPair(base_model, recipe, seed_group, seed, is_informed))

    return pooled(pairs, cases)


def _insert_pool(con: duckdb.DuckDBPyConnection, pool: str, ids: list[str]) -> None:
    from warehouse.comparison.pooled import Pooled

    rows = [[pool, *astuple(row)] for row in pool_rows(con, ids)]
    names = ["pool", *(field.name for field in fields(Pooled))]
    marks = ", ".join("?" * len(names))
    if rows:
        con.executemany(f"INSERT INTO pooled_metric ({', '.join(names)}) VALUES ({marks})", rows)


def _insert_bounds(con: duckdb.DuckDBPyConnection, looks: str, ids: list[str]) -> None:
    from warehouse.comparison.adjusted_gates import adjusted_bounds  # SciPy comes with it
    from warehouse.comparison.cells import judged_cases

    gates = adjusted_bounds(judged_cases(con, ids))
    con.execute(
        "DELETE FROM adjusted_bound WHERE evaluation_id IN (SELECT unnest($ids))", {"ids": ids}
    )
    rows = [
        [id, gate.gate, looks, gate.bound, gate.method, gate.note]
        for id, of_model in zip(ids, gates, strict=True)
        for gate in of_model
    ]
    con.executemany("INSERT INTO adjusted_bound VALUES (?, ?, ?, ?, ?, ?)", rows)
