"""The leaderboard with every figure and interval. Its order is decided by the view:
warehouse/views/04_leaderboard.sql.
"""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import clock, ed_recall_figure, figure, is_number, percent
from flows.report.names import listed_name, verdict
from flows.report.prevalence import figures_at
from flows.report.table import ReportTable
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


def named_sets(board: Collection[EvaluationRow]) -> list[tuple[str, list[EvaluationRow]]]:
    """The rows of each test set behind its name in titles, which is empty where there is one set."""
    sets = by_test_set(board)
    return [(_set_name(rows) if len(sets) > 1 else "", rows) for rows in sets]


def _set_name(rows: list[EvaluationRow]) -> str:
    """`test set 3f2a1b (60 cases, 20 of them emergencies)`."""
    row = rows[0]
    digest = row.set_digest[:6]
    return f"test set {digest} ({row.cases} cases, {row.emergencies} of them emergencies)"


def leaderboard(board: Collection[EvaluationRow], prevalence: float | None = None) -> ReportTable:
    """One row per experiment, in the order of `board`, the rows of the view.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    table = ReportTable.of(
        LEADERBOARD, [_record(row, prevalence) for row in board], '"FROM leaderboard"'
    )
    return table.with_notes(reference_notes(board))


def reference_notes(board: Collection[EvaluationRow]) -> list[str]:
    """What does not follow from the references of `board` that were quantised before, each once."""
    unpacked = [row.precision for row in board if (row.precision or "").startswith(UNPACKED)]
    notes = [reference_note(precision) for precision in unpacked]
    return list(dict.fromkeys(note for note in notes if note))


def _record(row: EvaluationRow, prevalence: float | None) -> dict[str, str]:
    precision, f2 = figures_at(row, prevalence)
    # The interval is that of the F2 at the prevalence of the set.
    f2_interval = (row.ed_f2_low, row.ed_f2_high) if prevalence is None else (None, None)
    share = row.ed_prevalence if prevalence is None else prevalence
    return {
        "experiment": listed_name(row),
        "accuracy": figure(row.accuracy, row.accuracy_low, row.accuracy_high),
        "ED recall": ed_recall_figure(row.ed_recall, row.ed_recall_low, row.ed_recall_high),
        "over-triage": figure(row.over_triage, row.over_triage_low, row.over_triage_high),
        "gates": verdict(row).replace("\n", " "),
        "ED F2": figure(f2, *f2_interval),
        "ED precision": f"{figure(precision)} of {percent(share)} ED",
        "macro-F1": figure(row.macro_f1),
        "stored MB": figure(row.stored_bytes / 1e6, digits=1) if row.stored_bytes else "-",
        "test loss": figure(row.test_loss),
        "trained in": clock(row.train_seconds) if is_number(row.train_seconds) else "-",
    }
