"""The cases that both sides of a pair judged, and what `paired.py` says about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np

from tasks.judging.point_metrics import Floats, Ints
from tasks.spec import LABELS
from warehouse.comparison.pair_tables import Pair, PairTable
from warehouse.comparison.paired import (
    MetricComparison,
    PairedDecisions,
    compare,
    not_available,
)
from warehouse.comparison.paired_scores import compare_auroc, compare_losses
from warehouse.judged_rows import judged_rows

_POSITION: dict[str | None, int] = {label: position for position, label in enumerate(LABELS)}


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
    p_ed_4bit: float
    p_ed_8bit: float

    @property
    def unit(self) -> str:
        """What the case is resampled with: its group, or the case alone."""
        return f"case {self.case_id}" if self.group is None else self.group


def cases_by_rule(
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
            PairedCase(
                a.case_id, a.label, a.group, a.by(rule), b.by(rule), a.nll, b.nll, a.p_ed, b.p_ed
            )
            for a, b in case_pairs
        ]
        for rule in ("primary", "argmax")
    }


def comparisons(
    cases: list[PairedCase], cost: Floats | None, table: PairTable, rule: str
) -> list[MetricComparison]:
    """The metrics of a pair under one rule; the AUROC and the loss, which know no rule, stand under
    the argmax.

    Empty if the sides share no case; the audit `pairs_agree` reports it.
    """
    if not cases:
        return []
    if any(case.at_4bit is None or case.at_8bit is None for case in cases):
        reason = "the rule could not be applied on both sides"
        return not_available(len(cases), reason, table.metrics)

    pair = _paired_decisions(cases)
    figures = compare(pair, cost, table.metrics)
    if rule == "argmax":
        p_ed = [(case.p_ed_4bit, case.p_ed_8bit) for case in cases]
        figures.append(compare_auroc(pair, np.array(p_ed, dtype=np.float64)))

    losses = [(case.loss_4bit, case.loss_8bit) for case in cases]
    if (
        table.with_losses
        and rule == "argmax"
        and all(None not in pair_losses for pair_losses in losses)
    ):
        figures.append(compare_losses(pair, np.array(losses, dtype=np.float64)))

    return figures


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


def cost_matrix(con: duckdb.DuckDBPyConnection, pair: Pair) -> Floats | None:
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
