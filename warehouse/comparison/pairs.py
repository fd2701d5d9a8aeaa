"""Pairs of evaluations on the same cases, 4 bits against 8 and any precision against its reference:
keeps `pair_metric` and `reference_metric` equal to what the predictions of all pairs give.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb

from tasks.judging.point_metrics import Costs
from tasks.spec import ED_AUROC
from warehouse.comparison.cells import judged_cases
from warehouse.comparison.differences import COST, LOSS, METRICS, differences
from warehouse.schema import insert_rows

Pair = tuple[Any, ...]  # a row of a PairTable's view: its `keys`
FIGURES = (
    *("rule", "metric", "value_4bit", "value_8bit", "difference", "low", "high", "cases", "groups"),
    *("b", "c", "mcnemar_p", "margin", "verdict", "note"),
)


@dataclass(frozen=True)
class PairTable:
    """A view of pairs, and the table of their figures.

    `keys`: columns that both have, those of both evaluations last; `possible`: whether evaluations at
    these precisions can be a pair, where adapters were moved or not; `renamed`: figures that the table
    calls otherwise.
    """

    view: str
    name: str
    keys: tuple[str, ...]
    possible: Callable[[set[str | None], bool], bool]
    renamed: dict[str, str] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[str, ...]:
        """The columns of both evaluations."""
        return self.keys[-2:]


TABLES = (
    PairTable(
        view="equal_pair",
        name="pair_metric",
        keys=(
            *("base_model", "recipe", "seed", "evaluation_set"),
            *("evaluation_4bit", "evaluation_8bit"),
        ),
        possible=lambda precisions, _: {"4bit", "8bit"} <= precisions,
    ),
    PairTable(
        view="reference_pair",
        name="reference_metric",
        keys=("evaluation_id", "reference_evaluation"),
        possible=lambda precisions, moved: len(precisions) > 1 and (moved or "bf16" in precisions),
        renamed={
            "value_4bit": "value",
            "value_8bit": "reference_value",
            "b": "right_only",
            "c": "reference_right_only",
        },
    ),
)

# What a training or an evaluation that was loaded can have changed: pairs with it, with its scores
# as another version judged them, or with an adapter that was moved from it.
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
    SELECT evaluation_id, set_digest, base_model, precision, source_training_id IS NOT NULL AS is_moved
    FROM evaluation
    JOIN experiment USING (training_id)
)
SELECT evaluation_id, precision, is_moved
FROM one
SEMI JOIN (FROM one WHERE evaluation_id IN (SELECT unnest($ids::VARCHAR[]))) AS concerned
    USING (set_digest, base_model)
"""


def refresh(con: duckdb.DuckDBPyConnection, id: str | None = None) -> None:
    """Bring the figures of pairs up to date, inside the caller's transaction: of those that the
    training or evaluation `id`, which was loaded, can have changed, or of all.
    """
    concerned: list[str] = []
    comparable: list[tuple[str, str | None, bool]] = []
    if id is not None:
        concerned = [pair_id for (pair_id,) in con.execute(_CONCERNED, {"id": id}).fetchall()]
        if not concerned:
            return
        comparable = con.execute(_COMPARABLE, {"ids": concerned}).fetchall()
    precisions = {precision for _, precision, _ in comparable}
    moved = any(is_moved for *_, is_moved in comparable)

    for table in TABLES:
        sides = ", ".join(table.sides)
        keys = ", ".join(table.keys)
        pairs: list[Pair] = []
        if id is None:
            con.execute(
                f"DELETE FROM {table.name} "
                f"WHERE ({sides}) NOT IN (SELECT ({sides}) FROM {table.view})"
            )
            missing = f"SELECT {keys} FROM {table.view} ANTI JOIN {table.name} USING ({sides})"
            pairs = con.execute(missing).fetchall()
        else:
            values: dict[str, Any] = {"concerned": concerned}
            one = " OR ".join(f"list_contains($concerned, {side})" for side in table.sides)
            con.execute(f"DELETE FROM {table.name} WHERE {one}", values)
            # Most landings leave one of the views without a pair, and it need not be asked.
            if table.possible(precisions, moved):
                values["comparable"] = [comparable_id for comparable_id, *_ in comparable]
                of_these = f"SELECT {keys} FROM {table.view}_of($comparable) WHERE {one}"
                pairs = con.execute(of_these, values).fetchall()

        rows = [row for pair in pairs for row in figure_rows(con, table, pair)]
        insert_rows(con, table.name, rows)


def figure_rows(
    con: duckdb.DuckDBPyConnection, table: PairTable, pair: Pair
) -> list[dict[str, Any]]:
    """The rows of a pair, with the columns of `table`; none without a case, which an audit reports."""
    cases = judged_cases(con, pair[-2:])
    if not cases.units:
        return []

    # The cost matrix that both evaluations have.
    stored = con.execute(
        "SELECT cost_matrix FROM evaluation WHERE evaluation_id IN (?, ?)", list(pair[-2:])
    ).fetchall()
    matrices = [text and json.loads(text) for (text,) in stored]
    costs: Costs | None = matrices[0] if matrices[0] == matrices[-1] else None

    name = dict(zip(table.keys, pair, strict=True))
    metrics = (*METRICS, COST, ED_AUROC, LOSS)
    rows = differences(cases, [(name, [0])], ("primary", "argmax"), metrics, costs)
    of_table = [*table.keys, *FIGURES]
    return [{table.renamed.get(key, key): row[key] for key in of_table} for row in rows]
