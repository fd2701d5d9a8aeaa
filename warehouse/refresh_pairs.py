"""Keeps `pair_metric` equal to what the predictions of all equal pairs give, earlier ones too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import duckdb
import numpy as np

from tasks.judging.point_metrics import Floats, Ints
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS
from warehouse.paired import Comparison, PairedDecisions, compare, not_available

DECISION_COLUMNS = {"primary": "decision", "argmax": "argmax"}  # of the table prediction, by rule
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

    @property
    def unit(self) -> str:
        """What the case is resampled with: its group, or the case alone."""
        return f"case {self.case_id}" if self.group is None else self.group


KEYS = tuple(field.name for field in fields(EqualPair))
COLUMNS = (*KEYS, "rule", *(field.name for field in fields(Comparison)))


def refresh(con: duckdb.DuckDBPyConnection, id: str | None = None) -> None:
    """Bring `pair_metric` up to date, inside the caller's transaction.

    `id` names the training or evaluation that was loaded; None follows a change of the views, which
    may show other pairs now.
    """
    con.execute(
        """
        WITH loaded AS (
            SELECT evaluation_id FROM evaluation WHERE $id IN (evaluation_id, training_id)
        )
        DELETE FROM pair_metric
        WHERE evaluation_4bit IN (FROM loaded)
           OR evaluation_8bit IN (FROM loaded)
           OR (evaluation_4bit, evaluation_8bit) NOT IN (
               SELECT (evaluation_4bit, evaluation_8bit) FROM equal_pair
           )
        """,
        {"id": id},
    )
    for pair in _pairs_without_figures(con):
        _insert(con, pair)


def _pairs_without_figures(con: duckdb.DuckDBPyConnection) -> list[EqualPair]:
    rows = con.execute(
        f"""
        SELECT {", ".join(KEYS)}
        FROM equal_pair ANTI JOIN pair_metric USING (evaluation_4bit, evaluation_8bit)
        """
    ).fetchall()
    return [EqualPair(*row) for row in rows]


def _insert(con: duckdb.DuckDBPyConnection, pair: EqualPair) -> None:
    cost = _cost_matrix(con, pair)
    rows = [
        [*astuple(pair), rule, *astuple(comparison)]
        for rule in DECISION_COLUMNS
        for comparison in _comparisons(_cases(con, pair, rule), cost)
    ]
    if rows:
        marks = ", ".join("?" * len(COLUMNS))
        con.executemany(f"INSERT INTO pair_metric ({', '.join(COLUMNS)}) VALUES ({marks})", rows)


def _cases(con: duckdb.DuckDBPyConnection, pair: EqualPair, rule: str) -> list[PairedCase]:
    """The cases of a pair in order of case_id, so that seeded resampling is repeatable."""
    decision = DECISION_COLUMNS[rule]
    rows = con.execute(
        f"""
        SELECT four.case_id, four.label, four.case_group, four.{decision}, eight.{decision}
        FROM prediction AS four
        JOIN prediction AS eight USING (case_id)
        WHERE four.evaluation_id = ? AND eight.evaluation_id = ?
        ORDER BY case_id
        """,
        [pair.evaluation_4bit, pair.evaluation_8bit],
    ).fetchall()
    return [PairedCase(*row) for row in rows]


def _comparisons(cases: list[PairedCase], cost: Floats | None) -> list[Comparison]:
    """METRICS of a pair under one rule.

    None if the sides share no case; the audit `pairs_agree` reports it.
    """
    if not cases:
        return []
    if any(case.at_4bit is None or case.at_8bit is None for case in cases):
        return not_available(len(cases), "the rule could not be applied on both sides")
    return compare(_paired_decisions(cases), cost)


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


def _cost_matrix(con: duckdb.DuckDBPyConnection, pair: EqualPair) -> Floats | None:
    """The cost matrix (3, 3) that both evaluations name, or None where they name none or two."""
    rows = con.execute(
        "SELECT DISTINCT cost_matrix FROM evaluation WHERE evaluation_id IN (?, ?)",
        [pair.evaluation_4bit, pair.evaluation_8bit],
    ).fetchall()
    if len(rows) != 1 or rows[0][0] is None:
        return None
    try:
        costs = json.loads(rows[0][0])
        return np.array(
            [[costs[truth][decision] for decision in LABELS] for truth in LABELS], dtype=np.float64
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"Table evaluation: cost_matrix of {pair.evaluation_4bit} is not JSON of the form "
            "{truth: {decision: cost}}."
        ) from error
