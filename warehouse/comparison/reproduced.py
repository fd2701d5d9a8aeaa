"""Figures that are computed again from predictions, for the audits that SQL cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, fields
from typing import Any

import duckdb

from warehouse.comparison.cells import judged_cases
from warehouse.comparison.pair_tables import TABLES, PairTable
from warehouse.comparison.pooled import Pooled
from warehouse.comparison.pools import pools_to_store, without_figures
from warehouse.comparison.refresh_pairs import figure_rows
from warehouse.comparison.refresh_pools import pool_rows


def wrong_pairs(con: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    """Figures of pairs that predictions do not give: by both evaluations, rule and metric."""
    return [key for table in TABLES for key in _wrong_pair_figures(con, table)]


def wrong_pools(con: duckdb.DuckDBPyConnection) -> list[tuple[str, ...]]:
    """Figures of pools, and bounds of gates, that predictions do not give: by pool, base model,
    rule and metric; or by evaluation and gate.
    """
    return [*_wrong_pool_figures(con), *_wrong_bounds(con)]


def _wrong_pair_figures(
    con: duckdb.DuckDBPyConnection, table: PairTable
) -> Iterator[tuple[str, ...]]:
    """Of the pairs that have figures; `pairs_agree` and its like name those that have none."""
    first_side, second_side = table.sides
    pairs = con.execute(
        f"SELECT {', '.join(table.keys)} FROM {table.view} "
        f"SEMI JOIN {table.name} USING ({first_side}, {second_side})"
    ).fetchall()
    for row in pairs:
        pair = table.pair(*row)
        stored = _by_rule_and_metric(
            table,
            con.execute(
                f"SELECT {', '.join(table.columns)} FROM {table.name} "
                f"WHERE {first_side} = ? AND {second_side} = ?",
                list(pair.sides),
            ).fetchall(),
        )
        recomputed = _by_rule_and_metric(table, figure_rows(con, table, pair))
        for key in stored.keys() | recomputed.keys():
            if not _alike(stored.get(key), recomputed.get(key)):
                yield (*pair.sides, *key)


def _by_rule_and_metric(
    table: PairTable, rows: Iterable[Sequence[Any]]
) -> dict[tuple[str, str], tuple[Any, ...]]:
    first = len(table.keys)
    return {(row[first], row[first + 1]): tuple(row[first + 2 :]) for row in rows}


def _wrong_pool_figures(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, ...]]:
    names = [field.name for field in fields(Pooled)]
    pools = pools_to_store(con)
    missing = without_figures(con, pools)

    for pool, ids in pools.items():
        if pool in missing:
            continue

        rows = con.execute(
            f"SELECT {', '.join(names)} FROM pooled_metric WHERE pool = ?", [pool]
        ).fetchall()
        stored = {row[:3]: row[3:] for row in rows}
        recomputed = {
            (row.base_model, row.rule, row.metric): astuple(row)[3:] for row in pool_rows(con, ids)
        }
        for key in stored.keys() | recomputed.keys():
            if not _alike(stored.get(key), recomputed.get(key)):
                yield (pool, *key)


def _wrong_bounds(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, ...]]:
    from warehouse.comparison.adjusted_gates import adjusted_bounds  # SciPy comes with it

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


def _alike(figures: tuple[object, ...] | None, other_figures: tuple[object, ...] | None) -> bool:
    """Whether two rows are equal, numbers to 1e-9."""
    if figures is None or other_figures is None:
        return False
    return all(
        abs(a - b) <= 1e-9 if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in zip(figures, other_figures, strict=True)
    )
