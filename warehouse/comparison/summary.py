"""The pooled comparison of 4 with 8 bits as a reader gets it: stored figures, or figures of the
moment where none are stored.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path

import duckdb

from warehouse.comparison.pooled import Pooled
from warehouse.comparison.pools import missing_rows
from warehouse.connect import reading

_SETS = """
SELECT DISTINCT pool, evaluation_set, set_digest, coalesce(random_weights, false)
FROM pooled_pair_of($ids)
ORDER BY ALL
"""


@dataclass(frozen=True)
class PooledSet:
    """The pooled figures of one set of cases, by base model (or 'all'), rule and metric."""

    evaluation_set: str
    set_digest: str
    random_weights: bool
    figures: dict[tuple[str, str, str], Pooled]


def pooled_sets(
    only: Collection[str] | None = None, database: Path | None = None
) -> list[PooledSet]:
    """The pools of all evaluations, or of those whose ids are in `only`."""
    ids = None if only is None else sorted(only)
    with reading(database) as con:
        rows = {**_stored(con, ids), **missing_rows(con, ids)}
        return [
            PooledSet(name, digest, random, _by_key(rows.get(pool, [])))
            for pool, name, digest, random in con.execute(_SETS, {"ids": ids}).fetchall()
        ]


def _stored(con: duckdb.DuckDBPyConnection, ids: list[str] | None) -> dict[str, list[Pooled]]:
    """Stored figures by pool."""
    columns = ", ".join(field.name for field in fields(Pooled))
    rows = con.execute(
        f"SELECT pool, {columns} FROM quantization_summary_of($ids)", {"ids": ids}
    ).fetchall()
    pools: dict[str, list[Pooled]] = {}
    for pool, *row in rows:
        pools.setdefault(pool, []).append(Pooled(*row))

    return pools


def _by_key(rows: list[Pooled]) -> dict[tuple[str, str, str], Pooled]:
    return {(row.base_model, row.rule, row.metric): row for row in rows}
