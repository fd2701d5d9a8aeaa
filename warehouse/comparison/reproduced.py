"""Figures that are computed again from predictions, for the audits that SQL cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from typing import Any

import duckdb

from warehouse.comparison.adjusted_gates import adjusted_bounds
from warehouse.comparison.cells import judged_cases
from warehouse.comparison.pairs import TABLES, figure_rows
from warehouse.comparison.pooled import Pooled
from warehouse.comparison.pools import pool_rows, pools_to_store, without_figures

Rows = Iterable[Sequence[Any]]
_LOOKS = """
SELECT looks, list_sort(list(DISTINCT evaluation_id)) FROM gate_bounds GROUP BY looks
HAVING count(adjusted_method) > 0
"""


def wrong_pairs(con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Figures of pairs that predictions do not give, by the columns of their key.

    Of the pairs that have figures; `pairs_agree` and its like name those that have none.
    """
    wrong = []
    for table in TABLES:
        sides = ", ".join(table.sides)
        stored = con.execute(
            f"SELECT {', '.join(table.columns)} FROM {table.name} "
            f"SEMI JOIN {table.view} USING ({sides})"
        ).fetchall()
        pairs = con.execute(
            f"SELECT {', '.join(table.keys)} FROM {table.view} "
            f"SEMI JOIN {table.name} USING ({sides})"
        ).fetchall()
        recomputed = [row for pair in pairs for row in figure_rows(con, table, pair)]
        wrong += _differing(stored, recomputed, keys=len(table.keys) + 2)
    return wrong


def wrong_pools(con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """Figures of pools, and bounds of gates, that predictions do not give: by pool, base model,
    rule and metric; or by evaluation and gate.
    """
    pools = pools_to_store(con)
    made = {pool: pools[pool] for pool in pools.keys() - without_figures(con, pools).keys()}
    names = ", ".join(field.name for field in fields(Pooled))
    stored = con.execute(
        f"SELECT pool, {names} FROM pooled_metric WHERE pool IN (SELECT unnest($pools::VARCHAR[]))",
        {"pools": list(made)},
    ).fetchall()
    recomputed = [
        [pool, *astuple(row)] for pool, ids in made.items() for row in pool_rows(con, ids)
    ]
    wrong = _differing(stored, recomputed, keys=4)

    for _, ids in con.execute(_LOOKS).fetchall():
        bounds = con.execute(
            "SELECT evaluation_id, gate, bound FROM adjusted_bound "
            "WHERE evaluation_id IN (SELECT unnest($ids))",
            {"ids": ids},
        ).fetchall()
        gates = zip(ids, adjusted_bounds(judged_cases(con, ids)), strict=True)
        again = [[id, gate.gate, gate.bound] for id, of_model in gates for gate in of_model]
        wrong += _differing(bounds, again, keys=2)
    return wrong


def _differing(stored: Rows, recomputed: Rows, keys: int) -> list[tuple[Any, ...]]:
    """The keys, their first columns, of rows that are there once alone, or differ by over 1e-9."""
    of_stored = {tuple(row[:keys]): row[keys:] for row in stored}
    of_recomputed = {tuple(row[:keys]): row[keys:] for row in recomputed}
    return [
        key
        for key in of_stored.keys() | of_recomputed.keys()
        if not _alike(of_stored.get(key), of_recomputed.get(key))
    ]


def _alike(figures: Sequence[Any] | None, other_figures: Sequence[Any] | None) -> bool:
    if figures is None or other_figures is None:
        return False
    return all(
        abs(a - b) <= 1e-9 if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(figures, other_figures, strict=True)
    )
