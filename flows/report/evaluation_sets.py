"""Experiments on the grid's further evaluation sets: each set is reported separately, never pooled
with another.
"""

from __future__ import annotations

from collections.abc import Collection

from flows.report.figures import ed_recall_figure, figure, percent
from flows.report.names import listed_name, verdict
from flows.report.prevalence import at_prevalence
from flows.report.table import ReportTable
from flows.report.typed_rows import EvaluationRow, further_rows

SOURCES = (
    "On further evaluation sets, source by source "
    "(thresholds from calibration; never used for choosing)"
)


def by_source(
    board: list[EvaluationRow],
    prevalence: float | None = None,
    ids: Collection[str] | None = None,
) -> ReportTable:
    """One row per experiment of `board` and evaluation set other than test.

    `ids`: the evaluations of the study. `prevalence` restates ED precision and F2
    at another share of emergencies.
    """
    return ReportTable.of(
        SOURCES,
        [_record(row, prevalence) for row in further_rows(board, ids)],
        '"FROM evaluation_summary"',
    )


def _record(row: EvaluationRow, prevalence: float | None) -> dict[str, str]:
    share = percent(row.ed_prevalence)
    return {
        "set": f"{row.evaluation_set}\n{row.cases} cases, {share} ED",
        "experiment": listed_name(row),
        "accuracy": figure(row.accuracy, row.accuracy_low, row.accuracy_high, below=True),
        "macro F1": figure(row.macro_f1),
        "ED recall": ed_recall_figure(
            row.ed_recall, row.ed_recall_low, row.ed_recall_high, below=True
        ),
        **at_prevalence(row, prevalence),
        "over-triage": figure(
            row.over_triage, row.over_triage_low, row.over_triage_high, below=True
        ),
        "gates": verdict(row),
    }
