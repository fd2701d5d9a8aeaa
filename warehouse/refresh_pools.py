"""Keeps `pooled_metric` and `adjusted_bound` equal to what the pairs and models of now give.

Both tables name by a digest what they were made from, and the views show figures of this digest
alone, so that an old figure is never shown. Pools of many pairs are made at the end of a load
rather than after each landing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import astuple, fields

import duckdb
import numpy as np

from tasks.judging.point_metrics import Floats
from warehouse.cells import JudgedCases, judged_cases
from warehouse.pooled import Pooled, PooledPair, pooled

# Cases of all models of a pool that are judged anew after each landing, in a second or less.
AT_EACH_LANDING = 200_000

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
_LOOKS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) AS ids
FROM gate_bounds
GROUP BY looks
HAVING count(*) FILTER (adjusted_method IS NULL) > 0
ORDER BY looks
"""


def refresh(con: duckdb.DuckDBPyConnection, most: int | None = None) -> None:
    """Make the figures that are missing, in a transaction; those of more than `most` cases wait."""
    con.begin()
    try:
        shown = _pools_to_store(con)
        con.execute(
            "DELETE FROM pooled_metric WHERE pool NOT IN (SELECT unnest($pools::VARCHAR[]))",
            {"pools": list(shown)},
        )
        for pool, ids in _without_figures(con, shown).items():
            if _few_enough(con, ids, most):
                _insert_pool(con, pool, ids)
        for looks, ids in con.execute(_LOOKS).fetchall():
            if _few_enough(con, ids, most):
                _insert_bounds(con, looks, ids)
        con.commit()
    except BaseException:
        con.rollback()
        raise


def is_current(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether no figure is missing."""
    missing = _without_figures(con, _pools_to_store(con))
    return not missing and not con.execute(_LOOKS).fetchall()


def missing_rows(
    con: duckdb.DuckDBPyConnection, only: Collection[str] | None = None
) -> dict[str, list[Pooled]]:
    """The figures that `quantization_summary_of(only)` lacks, by pool; nothing is written."""
    missing = _without_figures(con, _pools(con, only))
    return {pool: pool_rows(con, ids) for pool, ids in missing.items()}


def _pools_to_store(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The pools of all evaluations, and those of the study of the last sweep."""
    ((of_last_sweep,),) = con.execute(_OF_LAST_SWEEP).fetchall()
    pools = _pools(con, None)
    return pools | (_pools(con, of_last_sweep) if of_last_sweep else {})


def _pools(con: duckdb.DuckDBPyConnection, only: Collection[str] | None) -> dict[str, list[str]]:
    """Pools with their evaluations, those of a pair side by side."""
    ids = None if only is None else sorted(only)
    rows = con.execute(_POOLS, {"ids": ids}).fetchall()
    return {pool: [id for pair in pairs for id in pair] for pool, pairs in rows}


def _without_figures(
    con: duckdb.DuckDBPyConnection, pools: dict[str, list[str]]
) -> dict[str, list[str]]:
    stored = {pool for (pool,) in con.execute("SELECT DISTINCT pool FROM pooled_metric").fetchall()}
    return {pool: ids for pool, ids in pools.items() if pool not in stored}


def pool_rows(con: duckdb.DuckDBPyConnection, ids: list[str]) -> list[Pooled]:
    """The figures of a pool; `ids` are its evaluations, those of a pair side by side."""
    cases = judged_cases(con, ids)
    if not cases.units:
        return []
    return pooled(_pairs(con, ids, cases), cases)


def _few_enough(con: duckdb.DuckDBPyConnection, ids: list[str], most: int | None) -> bool:
    if most is None:
        return True
    query = "SELECT sum(cases) FROM evaluation WHERE evaluation_id IN (SELECT unnest($ids))"
    (cases,) = con.execute(query, {"ids": ids}).fetchone() or (0,)
    return int(cases or 0) <= most


def _pairs(con: duckdb.DuckDBPyConnection, ids: list[str], cases: JudgedCases) -> list[PooledPair]:
    """The pairs in the order of `ids`, each with whether one of its models is informed."""
    rows = con.execute(
        """
        SELECT evaluation_id, base_model, recipe, seed, low
        FROM evaluation
        JOIN experiment USING (training_id)
        LEFT JOIN (SELECT * FROM metric WHERE rule = 'argmax' AND metric = 'accuracy')
            USING (evaluation_id)
        WHERE evaluation_id IN (SELECT unnest($ids))
        """,
        {"ids": ids},
    ).fetchall()
    by_id = {id: row for id, *row in rows}
    constant, _ = cases.best_constant()
    informed = _informed([by_id[id][3] for id in ids], constant)
    made = []
    for place in range(0, len(ids), 2):
        base_model, recipe, seed, _ = by_id[ids[place]]
        made.append(PooledPair(base_model, recipe, seed, bool(informed[place : place + 2].any())))
    return made


def _informed(lows: list[float | None], constant: Floats) -> np.ndarray:
    """Whether each model's accuracy interval lies above the best constant answer, (models,)."""
    return np.array([np.nan if low is None else low for low in lows]) > constant


def _insert_pool(con: duckdb.DuckDBPyConnection, pool: str, ids: list[str]) -> None:
    rows = [[pool, *astuple(row)] for row in pool_rows(con, ids)]
    names = ["pool", *(field.name for field in fields(Pooled))]
    marks = ", ".join("?" * len(names))
    if rows:
        con.executemany(f"INSERT INTO pooled_metric ({', '.join(names)}) VALUES ({marks})", rows)


def _insert_bounds(con: duckdb.DuckDBPyConnection, looks: str, ids: list[str]) -> None:
    from warehouse.adjusted_gates import adjusted_bounds  # SciPy comes with it

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


def contradictions(con: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    """Stored figures that are not what predictions give when they are computed again: by pool, base
    model, rule and metric; or by evaluation and gate.
    """
    return [*_wrong_pools(con), *_wrong_bounds(con)]


def _wrong_pools(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, ...]]:
    names = [field.name for field in fields(Pooled)]
    shown = _pools_to_store(con)
    missing = _without_figures(con, shown)
    for pool, ids in shown.items():
        if pool in missing:
            continue
        rows = con.execute(
            f"SELECT {', '.join(names)} FROM pooled_metric WHERE pool = ?", [pool]
        ).fetchall()
        stored = {row[:3]: row[3:] for row in rows}
        anew = {
            (row.base_model, row.rule, row.metric): astuple(row)[3:] for row in pool_rows(con, ids)
        }
        for key in stored.keys() | anew.keys():
            if not _alike(stored.get(key), anew.get(key)):
                yield (pool, *key)


def _wrong_bounds(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, ...]]:
    from warehouse.adjusted_gates import adjusted_bounds  # SciPy comes with it

    looks = con.execute(
        """
        SELECT looks, list_sort(list(DISTINCT evaluation_id)) FROM gate_bounds GROUP BY looks
        HAVING count(adjusted_method) > 0
        """
    ).fetchall()
    for _, ids in looks:
        rows = con.execute(
            "SELECT evaluation_id, gate, bound FROM adjusted_bound "
            "WHERE evaluation_id IN (SELECT unnest($ids))",
            {"ids": ids},
        ).fetchall()
        stored = {(id, gate): (bound,) for id, gate, bound in rows}
        for id, gates in zip(ids, adjusted_bounds(judged_cases(con, ids)), strict=True):
            for gate in gates:
                if not _alike(stored.get((id, gate.gate)), (gate.bound,)):
                    yield (id, gate.gate)


def _alike(one: tuple[object, ...] | None, other: tuple[object, ...] | None) -> bool:
    """Whether two rows are equal, numbers to 1e-9."""
    if one is None or other is None:
        return False
    return all(
        abs(a - b) <= 1e-9 if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(one, other, strict=True)
    )
