"""Figures that are computed again from predictions, for the audits that SQL cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from warehouse.comparison.pairs import TABLES, figure_rows
from warehouse.comparison.pools import (
    as_dicts,
    bound_rows,
    pool_rows,
    pools_to_store,
    without_figures,
)

_LOOKS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) FROM gate_bounds GROUP BY looks
HAVING count(adjusted_method) > 0
"""
Row = Mapping[str, Any]
Key = tuple[Any, ...]


def wrong_pairs(con: duckdb.DuckDBPyConnection) -> list[Key]:
    """Figures of pairs that predictions do not give, by the columns of their key, of the pairs that
    have figures; `pairs_agree` and its like name those that have none.
    """
    wrong = []
    for table in TABLES:
        sides = ", ".join(table.sides)
        pairs = con.execute(
            f"SELECT {', '.join(table.keys)} FROM {table.view} "
            f"SEMI JOIN {table.name} USING ({sides})"
        ).fetchall()
        again = [row for pair in pairs for row in figure_rows(con, table, pair)]
        stored = con.execute(f"FROM {table.name} SEMI JOIN {table.view} USING ({sides})")
        wrong += _differing(stored, again, (*table.keys, "rule", "metric"))
    return wrong


def wrong_pools(con: duckdb.DuckDBPyConnection) -> list[Key]:
    """Figures of pools, and bounds of gates, that predictions do not give: by pool, seed group, rule
    and metric; or by evaluation and gate.
    """
    pools = pools_to_store(con)
    made = {pool: pools[pool] for pool in pools.keys() - without_figures(con, pools).keys()}
    again = [row for pool, pairs in made.items() for row in pool_rows(con, pool, pairs)]
    stored = con.execute(
        "FROM pooled_metric WHERE pool IN (SELECT unnest($pools::VARCHAR[]))", {"pools": list(made)}
    )
    wrong = _differing(stored, again, ("pool", "seed_group", "rule", "metric"))

    for looks, ids in con.execute(_LOOKS).fetchall():
        bounds = bound_rows(con, looks, ids)
        stored = con.execute(
            "FROM adjusted_bound WHERE evaluation_id IN (SELECT unnest($ids))", {"ids": ids}
        )
        wrong += _differing(stored, bounds, ("evaluation_id", "gate"))
    return wrong


def _differing(
    stored: duckdb.DuckDBPyConnection, recomputed: Iterable[Row], keys: Sequence[str]
) -> list[Key]:
    """The keys of rows that are there once alone, or differ by over 1e-9."""
    first, second = (
        {tuple(row[key] for key in keys): row for row in rows}
        for rows in (as_dicts(stored), recomputed)
    )
    return [
        key
        for key in first.keys() | second.keys()
        if not _alike(first.get(key, {}), second.get(key, {}))
    ]


def _alike(row: Row, other: Row) -> bool:
    return row.keys() == other.keys() and all(
        abs(value - other[name]) <= 1e-9
        if isinstance(value, float) and isinstance(other[name], float)
        else value == other[name]
        for name, value in row.items()
    )
