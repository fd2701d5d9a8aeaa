"""The leaderboard as people read it. Its order is decided by the view:
warehouse/views/04_leaderboard.sql.
"""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import clock, figure, is_number
from flows.report.names import experiment_name, verdict
from flows.report.prevalence import at_prevalence
from flows.report.table import Table
from flows.report.typed_rows import EvaluationRow
from tasks.precisions import UNPACKED, reference_note

LEADERBOARD = (
    "Experiments on the test set, best first: those that pass the gates by least over-triage, "
    "then provisional and unsafe ones by ED recall; baselines at the foot. In brackets: 95 % "
    "intervals"
)


def by_test_set(board: Collection[EvaluationRow]) -> list[list[EvaluationRow]]:
    """The rows of each test set, in their order: figures on other cases cannot be compared."""
    sets: dict[str, list[EvaluationRow]] = {}
    for row in board:
        sets.setdefault(row.set_digest, []).append(row)
    return list(sets.values())


def leaderboard(board: Collection[EvaluationRow], prevalence: float | None = None) -> Table:
    """One row per experiment, in the order of `board`, the rows of the view.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    table = Table.of(LEADERBOARD, [_record(row, prevalence) for row in board])
    unpacked = [row.precision for row in board if (row.precision or "").startswith(UNPACKED)]
    return table.with_notes(map(reference_note, unpacked))


def _record(row: EvaluationRow, prevalence: float | None) -> dict[str, str]:
    return {
        "experiment": experiment_name(row),
        "accuracy": figure(row.accuracy, row.accuracy_low, row.accuracy_high, below=True),
        "ED recall": figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high, below=True),
        **at_prevalence(row, prevalence),
        "over-triage": figure(
            row.over_triage, row.over_triage_low, row.over_triage_high, below=True
        ),
        "gates": verdict(row),
        "test\nloss": figure(row.test_loss),
        "trained\nin": clock(row.train_seconds) if is_number(row.train_seconds) else "-",
    }
