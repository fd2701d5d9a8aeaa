"""Keeps `pair_metric` and `reference_metric` equal to what the predictions of
all pairs give, earlier ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import duckdb
import numpy as np

from tasks.judging.point_metrics import Floats, Ints
from tasks.spec import LABELS
from warehouse.judged_rows import judged_rows
from warehouse.paired import (
    METRICS,
    WITH_OVER_TRIAGE,
    Comparison,
    PairedDecisions,
    compare,
    compare_losses,
    not_available,
)

_POSITION: dict[str | None, int] = {label: position for position, label in enumerate(LABELS)}


@dataclass(frozen=True)
class EqualPair:
    """Two evaluations that differ in bits alone; fields as in `equal_pair` and `pair_metric`."""

    base_model: str
    recipe: str
    seed: int
    evaluation_set: str
    evaluation_4bit: str
    evaluation_8bit: str

    @property
    def sides(self) -> tuple[str, str]:
        return self.evaluation_4bit, self.evaluation_8bit


@dataclass(frozen=True)
class PairedCase:
    """One case as both models decided it by one rule.

    A decision is None where the rule could not be applied.
    """

    case_id: str
    label: str
    group: str | None
    at_4bit: str | None
    at_8bit: str | None
    loss_4bit: float | None
    loss_8bit: float | None

    @property
    def unit(self) -> str:
        """What the case is resampled with: its group, or the case alone."""
        return f"case {self.case_id}" if self.group is None else self.group


@dataclass(frozen=True)
class ReferencePair:
    """An evaluation at a precision and that of its reference; fields as in `reference_pair`."""

    evaluation_id: str
    reference_evaluation: str

    @property
    def sides(self) -> tuple[str, str]:
        return self.evaluation_id, self.reference_evaluation


Pair = EqualPair | ReferencePair


@dataclass(frozen=True)
class PairTable:
    """A view of pairs, and the table of their figures.

    `sides`: the columns of both evaluations; `renamed`: columns of the figures that are called
    otherwise than the fields of Comparison; `with_losses`: whether losses are compared too;
    `precisions`: those without which there is no pair.
    """

    view: str
    name: str
    pair: type[EqualPair] | type[ReferencePair]
    sides: tuple[str, str]
    renamed: dict[str, str]
    metrics: tuple[str, ...]
    with_losses: bool
    precisions: frozenset[str]

    @property
    def keys(self) -> list[str]:
        return [field.name for field in fields(self.pair)]

    @property
    def columns(self) -> list[str]:
        figures = [field.name for field in fields(Comparison)]
        return [*self.keys, "rule", *(self.renamed.get(name, name) for name in figures)]


FOUR_AGAINST_EIGHT = PairTable(
    view="equal_pair",
    name="pair_metric",
    pair=EqualPair,
    sides=("evaluation_4bit", "evaluation_8bit"),
    renamed={},
    metrics=METRICS,
    with_losses=False,
    precisions=frozenset({"4bit", "8bit"}),
)
AGAINST_REFERENCE = PairTable(
    view="reference_pair",
    name="reference_metric",
    pair=ReferencePair,
    sides=("evaluation_id", "reference_evaluation"),
    renamed={
        "value_4bit": "value",
        "value_8bit": "reference_value",
        "b": "right_only",
        "c": "reference_right_only",
    },
    metrics=WITH_OVER_TRIAGE,
    with_losses=True,
    precisions=frozenset({"bf16"}),
)


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

    for table in (FOUR_AGAINST_EIGHT, AGAINST_REFERENCE):
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


def _insert(
    con: duckdb.DuckDBPyConnection, table: PairTable, pair: Pair, root: Path | None
) -> None:
    cost = _cost_matrix(con, pair)
    rows = [
        [*astuple(pair), rule, *astuple(comparison)]
        for rule, cases in _cases(con, pair, root).items()
        for comparison in _comparisons(cases, cost, table, rule)
    ]
    if rows:
        names = ", ".join(table.columns)
        marks = f"({', '.join('?' * len(table.columns))})"
        con.execute(
            f"INSERT INTO {table.name} ({names}) VALUES {', '.join([marks] * len(rows))}",
            [value for row in rows for value in row],
        )


def _cases(
    con: duckdb.DuckDBPyConnection, pair: Pair, root: Path | None
) -> dict[str, list[PairedCase]]:
    """The cases of a pair by rule, in order of case_id, so that seeded resampling is repeatable."""
    first_rows, second_rows = (judged_rows(con, side, root) for side in pair.sides)
    case_pairs = [
        (first_rows[case], second_rows[case])
        for case in sorted(first_rows.keys() & second_rows.keys())
    ]
    return {
        rule: [
            PairedCase(a.case_id, a.label, a.group, a.by(rule), b.by(rule), a.nll, b.nll)
            for a, b in case_pairs
        ]
        for rule in ("primary", "argmax")
    }


def _comparisons(
    cases: list[PairedCase], cost: Floats | None, table: PairTable, rule: str
) -> list[Comparison]:
    """The metrics of a pair under one rule; the loss, which knows no rule, stands under the argmax.

    None if the sides share no case; the audit `pairs_agree` reports it.
    """
    if not cases:
        return []
    if any(case.at_4bit is None or case.at_8bit is None for case in cases):
        reason = "the rule could not be applied on both sides"
        return not_available(len(cases), reason, table.metrics)

    pair = _paired_decisions(cases)
    comparisons = compare(pair, cost, table.metrics)
    losses = [(case.loss_4bit, case.loss_8bit) for case in cases]
    if (
        table.with_losses
        and rule == "argmax"
        and all(None not in pair_losses for pair_losses in losses)
    ):
        comparisons.append(compare_losses(pair, np.array(losses, dtype=np.float64)))

    return comparisons


def _paired_decisions(cases: list[PairedCase]) -> PairedDecisions:
    return PairedDecisions(
        truth=_positions([case.label for case in cases]),
        at_4bit=_positions([case.at_4bit for case in cases]),
        at_8bit=_positions([case.at_8bit for case in cases]),
        unit=_numbered([case.unit for case in cases]),
        grouped=any(case.group is not None for case in cases),
    )


def _positions(labels: Sequence[str | None]) -> Ints:
    """Positions in LABELS, (cases,)."""
    return np.array([_POSITION[label] for label in labels], dtype=np.int64)


def _numbered(names: list[str]) -> Ints:
    """Numbers from 0 in order of first appearance, (names,), so that a name has one number."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _cost_matrix(con: duckdb.DuckDBPyConnection, pair: Pair) -> Floats | None:
    """The cost matrix (3, 3) that both evaluations have, or None where they have none or two."""
    rows = con.execute(
        """
        SELECT label, decision, any_value(cost), count(*), count(DISTINCT cost)
        FROM cost
        WHERE evaluation_id IN (?, ?)
        GROUP BY label, decision
        """,
        list(pair.sides),
    ).fetchall()
    # Counts of 2 and 1: both evaluations have this cost, and it is the same.
    shared = {
        (label, decision): cost for label, decision, cost, *counts in rows if counts == [2, 1]
    }
    if len(shared) != len(LABELS) ** 2:
        return None

    return np.array([[shared[truth, decision] for decision in LABELS] for truth in LABELS])
