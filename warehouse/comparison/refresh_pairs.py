"""Keeps `pair_metric` and `reference_metric` equal to what the predictions of
all pairs give, earlier ones too.
"""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import duckdb

from warehouse.comparison.pair_tables import TABLES, Pair, PairTable
from warehouse.comparison.paired_cases import cases_by_rule, comparisons, cost_matrix

_CONCERNED = """
WITH touched AS (
    SELECT evaluation_id, scores_id
    FROM evaluation LEFT JOIN experiment USING (training_id)
    WHERE $id IN (evaluation_id, training_id, source_training_id)
)
SELECT evaluation_id
FROM evaluation
WHERE evaluation_id IN (SELECT evaluation_id FROM touched)
    OR scores_id IN (SELECT scores_id FROM touched)
"""


# Pairs are of one base model and the same cases.
_COMPARABLE = """
WITH one AS (
    SELECT evaluation_id, set_digest, base_model, precision
    FROM evaluation
    JOIN experiment USING (training_id)
)
SELECT evaluation_id, precision
FROM one
SEMI JOIN (FROM one WHERE evaluation_id IN (SELECT unnest($ids::VARCHAR[]))) AS concerned
    USING (set_digest, base_model)
"""


def refresh(
    con: duckdb.DuckDBPyConnection, id: str | None = None, root: Path | None = None
) -> None:
    """Bring the figures of all pairs up to date, inside the caller's transaction.

    `id` names the training or evaluation that was loaded: no pair without it, its scores as judged
    by another version, or an adapter that was moved from it, can have changed. None follows a
    change of the views, which may show other pairs now, or of many rows. `root`: the landing
    folders, which have the cases of an evaluation at hand.
    """
    concerned: list[str] = []
    comparable: dict[str, str | None] = {}
    if id is not None:
        concerned = [pair_id for (pair_id,) in con.execute(_CONCERNED, {"id": id}).fetchall()]
        if not concerned:
            return
        comparable = dict(con.execute(_COMPARABLE, {"ids": concerned}).fetchall())

    for table in TABLES:
        if id is None:
            _delete_what_is_no_pair(con, table)
            pairs = _pairs_without_figures(con, table)
        else:
            _delete_pairs_of(con, table, concerned)
            # Without these precisions there is no pair, so the view need not be asked.
            can_pair = table.precisions <= set(comparable.values())
            pairs = _pairs_of(con, table, concerned, list(comparable)) if can_pair else []
        for pair in pairs:
            _insert(con, table, pair, root)


def _delete_what_is_no_pair(con: duckdb.DuckDBPyConnection, table: PairTable) -> None:
    first_side, second_side = table.sides
    con.execute(
        f"DELETE FROM {table.name} "
        f"WHERE ({first_side}, {second_side}) NOT IN (SELECT ({first_side}, {second_side}) FROM "
        f"{table.view})"
    )


def _pairs_without_figures(con: duckdb.DuckDBPyConnection, table: PairTable) -> list[Pair]:
    rows = con.execute(
        f"""
        SELECT {", ".join(table.keys)}
        FROM {table.view} ANTI JOIN {table.name} USING ({", ".join(table.sides)})
        """
    ).fetchall()
    return [table.pair(*row) for row in rows]


def _delete_pairs_of(
    con: duckdb.DuckDBPyConnection, table: PairTable, evaluations: list[str]
) -> None:
    first_side, second_side = table.sides
    con.execute(
        f"""
        DELETE FROM {table.name}
        WHERE {first_side} IN (SELECT unnest($ids::VARCHAR[])) OR {second_side} IN (SELECT unnest($ids::VARCHAR[]))
        """,
        {"ids": evaluations},
    )


def _pairs_of(
    con: duckdb.DuckDBPyConnection, table: PairTable, concerned: list[str], comparable: list[str]
) -> list[Pair]:
    """The pairs of comparable evaluations with one of those that are concerned."""
    first_side, second_side = table.sides
    rows = con.execute(
        f"""
        SELECT {", ".join(table.keys)}
        FROM {table.view}_of($comparable)
        WHERE {first_side} IN (SELECT unnest($concerned::VARCHAR[]))
            OR {second_side} IN (SELECT unnest($concerned::VARCHAR[]))
        """,
        {"concerned": concerned, "comparable": comparable},
    ).fetchall()
    return [table.pair(*row) for row in rows]


def figure_rows(
    con: duckdb.DuckDBPyConnection, table: PairTable, pair: Pair, root: Path | None = None
) -> list[list[Any]]:
    """The rows of a pair, with the columns of `table`."""
    cost = cost_matrix(con, pair)
    return [
        [*astuple(pair), rule, *astuple(comparison)]
        for rule, cases in cases_by_rule(con, pair, root).items()
        for comparison in comparisons(cases, cost, table, rule)
    ]


def _insert(
    con: duckdb.DuckDBPyConnection, table: PairTable, pair: Pair, root: Path | None
) -> None:
    rows = figure_rows(con, table, pair, root)
    if rows:
        names = ", ".join(table.columns)
        marks = f"({', '.join('?' * len(table.columns))})"
        con.execute(
            f"INSERT INTO {table.name} ({names}) VALUES {', '.join([marks] * len(rows))}",
            [value for row in rows for value in row],
        )
