"""Pairs of evaluations on the same cases, 4 bits against 8 and any precision against its reference:
keeps `pair_metric` and `reference_metric` equal to what the predictions of all pairs give.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Any

import duckdb
import numpy as np

from tasks.judging.point_metrics import Floats, Ints
from tasks.spec import LABELS
from warehouse.comparison.paired import (
    METRICS,
    WITH_OVER_TRIAGE,
    MetricComparison,
    PairedDecisions,
    compare,
    compare_auroc,
    compare_losses,
    not_available,
)

Pair = tuple[Any, ...]  # a row of a PairTable's view: its `keys`


@dataclass(frozen=True)
class PairTable:
    """A view of pairs, and the table of their figures.

    `keys`: columns of the view that the table has, too, those of both evaluations last; `renamed`:
    columns of the figures that are called otherwise than the fields of MetricComparison;
    `precisions`: those without which there is no pair.
    """

    view: str
    name: str
    keys: tuple[str, ...]
    renamed: dict[str, str]
    metrics: tuple[str, ...]
    with_losses: bool
    precisions: frozenset[str]

    @property
    def sides(self) -> tuple[str, ...]:
        """The columns of both evaluations."""
        return self.keys[-2:]

    @property
    def columns(self) -> list[str]:
        figures = [field.name for field in fields(MetricComparison)]
        return [*self.keys, "rule", *(self.renamed.get(name, name) for name in figures)]


TABLES = (
    PairTable(
        view="equal_pair",
        name="pair_metric",
        keys=(
            "base_model",
            "recipe",
            "seed",
            "evaluation_set",
            "evaluation_4bit",
            "evaluation_8bit",
        ),
        renamed={},
        metrics=METRICS,
        with_losses=False,
        precisions=frozenset({"4bit", "8bit"}),
    ),
    PairTable(
        view="reference_pair",
        name="reference_metric",
        keys=("evaluation_id", "reference_evaluation"),
        renamed={
            "value_4bit": "value",
            "value_8bit": "reference_value",
            "b": "right_only",
            "c": "reference_right_only",
        },
        metrics=WITH_OVER_TRIAGE,
        with_losses=True,
        precisions=frozenset({"bf16"}),
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
    SELECT evaluation_id, set_digest, base_model, precision
    FROM evaluation
    JOIN experiment USING (training_id)
)
SELECT evaluation_id, precision
FROM one
SEMI JOIN (FROM one WHERE evaluation_id IN (SELECT unnest($ids::VARCHAR[]))) AS concerned
    USING (set_digest, base_model)
"""
# In order of case_id, so that seeded resampling is repeatable.
_CASES = """
SELECT
    list_position($labels, a.label) - 1 AS truth,
    coalesce(a.case_group, 'case ' || case_id) AS unit,
    a.case_group IS NOT NULL AS grouped,
    list_position($labels, a.decision) - 1 AS primary_a,
    list_position($labels, b.decision) - 1 AS primary_b,
    list_position($labels, a.argmax) - 1 AS argmax_a,
    list_position($labels, b.argmax) - 1 AS argmax_b,
    a.nll AS nll_a,
    b.nll AS nll_b,
    a.p_ed AS p_ed_a,
    b.p_ed AS p_ed_b
FROM (FROM prediction WHERE evaluation_id = $a) AS a
JOIN (FROM prediction WHERE evaluation_id = $b) AS b USING (case_id)
ORDER BY case_id
"""
_COSTS = """
SELECT label, decision, any_value(cost)
FROM cost
WHERE evaluation_id IN (?, ?)
GROUP BY label, decision
-- Both evaluations have this cost, and it is the same.
HAVING count(*) = 2 AND count(DISTINCT cost) = 1
"""


def refresh(con: duckdb.DuckDBPyConnection, id: str | None = None) -> None:
    """Bring the figures of pairs up to date, inside the caller's transaction: of those that the
    training or evaluation `id`, which was loaded, can have changed, or of all.
    """
    concerned: list[str] = []
    comparable: dict[str, str | None] = {}
    if id is not None:
        concerned = [pair_id for (pair_id,) in con.execute(_CONCERNED, {"id": id}).fetchall()]
        if not concerned:
            return
        comparable = dict(con.execute(_COMPARABLE, {"ids": concerned}).fetchall())

    for table in TABLES:
        first_side, second_side = table.sides
        keys = ", ".join(table.keys)
        pairs: list[Pair] = []
        if id is None:
            con.execute(
                f"DELETE FROM {table.name} WHERE ({first_side}, {second_side}) "
                f"NOT IN (SELECT ({first_side}, {second_side}) FROM {table.view})"
            )
            pairs = con.execute(
                f"SELECT {keys} FROM {table.view} "
                f"ANTI JOIN {table.name} USING ({first_side}, {second_side})"
            ).fetchall()
        else:
            with_one = f"{first_side} IN (FROM concerned) OR {second_side} IN (FROM concerned)"
            listed = "WITH concerned AS (SELECT unnest($concerned::VARCHAR[]))"
            con.execute(
                f"{listed} DELETE FROM {table.name} WHERE {with_one}", {"concerned": concerned}
            )
            # Without these precisions there is no pair, so the view need not be asked.
            if table.precisions <= set(comparable.values()):
                pairs = con.execute(
                    f"{listed} SELECT {keys} FROM {table.view}_of($comparable) WHERE {with_one}",
                    {"concerned": concerned, "comparable": list(comparable)},
                ).fetchall()

        names = ", ".join(table.columns)
        marks = f"({', '.join('?' * len(table.columns))})"
        for pair in pairs:
            if rows := figure_rows(con, table, pair):
                con.execute(
                    f"INSERT INTO {table.name} ({names}) VALUES {', '.join([marks] * len(rows))}",
                    [value for row in rows for value in row],
                )


def figure_rows(con: duckdb.DuckDBPyConnection, table: PairTable, pair: Pair) -> list[list[Any]]:
    """The rows of a pair, with the columns of `table`.

    Empty if the sides share no case; the audit `pairs_agree` reports it.
    """
    first_side, second_side = pair[-2:]
    sides = {"labels": list(LABELS), "a": first_side, "b": second_side}
    columns = con.execute(_CASES, sides).fetchnumpy()
    if not len(columns["truth"]):
        return []

    cost = _cost_matrix(con, pair)
    return [
        [*pair, rule, *astuple(comparison)]
        for rule in ("primary", "argmax")
        for comparison in _comparisons(columns, cost, table, rule)
    ]


def _comparisons(
    columns: dict[str, Any], cost: Floats | None, table: PairTable, rule: str
) -> list[MetricComparison]:
    """The metrics of a pair under one rule; the AUROC and the loss, which know no rule, stand under
    the argmax.
    """
    decided = [columns[f"{rule}_a"], columns[f"{rule}_b"]]
    if any(np.ma.is_masked(decisions) for decisions in decided):
        reason = "the rule could not be applied on both sides"
        return not_available(len(columns["truth"]), reason, table.metrics)

    at_4bit, at_8bit = (np.ma.getdata(decisions).astype(np.int64) for decisions in decided)
    pair = PairedDecisions(
        truth=np.ma.getdata(columns["truth"]).astype(np.int64),
        at_4bit=at_4bit,
        at_8bit=at_8bit,
        unit=_numbered(columns["unit"]),
        grouped=bool(columns["grouped"].any()),
    )
    figures = compare(pair, cost, table.metrics)
    if rule == "primary":
        return figures

    p_ed = np.ma.stack([columns["p_ed_a"], columns["p_ed_b"]], axis=1)
    figures.append(compare_auroc(pair, np.ma.getdata(p_ed)))
    losses = np.ma.stack([columns["nll_a"], columns["nll_b"]], axis=1)
    if table.with_losses and not np.ma.is_masked(losses):
        figures.append(compare_losses(pair, np.ma.getdata(losses)))

    return figures


def _numbered(names: Any) -> Ints:
    """Numbers from 0 in order of first appearance, (names,), so that a name has one number."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _cost_matrix(con: duckdb.DuckDBPyConnection, pair: Pair) -> Floats | None:
    """The cost matrix (3, 3) that both evaluations have, or None where they have none or two."""
    costs = {
        (label, decision): cost
        for label, decision, cost in con.execute(_COSTS, list(pair[-2:])).fetchall()
    }
    if len(costs) != len(LABELS) ** 2:
        return None
    return np.array([[costs[truth, decision] for decision in LABELS] for truth in LABELS])
