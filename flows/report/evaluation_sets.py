"""Experiments on the grid's further evaluation sets: each set is a source of its own, never pooled with another."""

from __future__ import annotations

import pandas as pd

from flows.report.figures import figure, percent, rows_of
from flows.report.names import experiment_name, verdict
from flows.report.prevalence import at_prevalence
from warehouse.query import query

SOURCES = "On further evaluation sets, source by source (thresholds from calibration; never used for choosing)"


def by_source(board: pd.DataFrame, prevalence: float | None = None) -> pd.DataFrame:
    """One row per experiment of `board` (rows of the leaderboard) and evaluation set other than test.

    `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    frame = query(
        "SELECT * FROM evaluation_summary WHERE evaluation_set <> 'test' ORDER BY evaluation_set, created_at"
    )
    frame = frame[frame.training_id.isin(set(board.training_id))]
    frame = frame.drop_duplicates(["evaluation_set", "training_id"], keep="last")
    rows = [
        {
            "set": f"{r.evaluation_set}\n{r.cases} cases, {percent(r.ed_prevalence)} ED", "experiment": experiment_name(r),
            "accuracy": figure(r.accuracy, r.accuracy_low, r.accuracy_high), "macro F1": figure(r.macro_f1),
            "ED recall": figure(r.ed_recall, r.ed_recall_low, r.ed_recall_high),
            **at_prevalence(r, prevalence),
            "over-triage": figure(r.over_triage, r.over_triage_low, r.over_triage_high), "gates": verdict(r),
        }
        for r in rows_of(frame)
    ]  # fmt: skip
    return pd.DataFrame(rows)
