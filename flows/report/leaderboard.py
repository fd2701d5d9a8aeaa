"""The comparison as people read it: figures with their intervals, words where the data cannot tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from flows.report.figures import clock, figure, rows_of
from flows.report.names import experiment_name, verdict
from flows.report.prevalence import at_prevalence
from warehouse.query import query


def leaderboard(
    only: Collection[str] | None = None, prevalence: float | None = None
) -> pd.DataFrame:
    """One row per experiment, best first, baselines among them; `only`: ids of evaluations, instead of the latest ones.

    The interval is a cell's second line. `prevalence` restates ED precision and F2 at another share of emergencies.
    """
    frame = query("SELECT * FROM leaderboard", only=only)
    rows = [
        {
            "experiment": experiment_name(r),
            "accuracy": figure(r.accuracy, r.accuracy_low, r.accuracy_high),
            "ED recall": figure(r.ed_recall, r.ed_recall_low, r.ed_recall_high),
            **at_prevalence(r, prevalence),
            "over-triage": figure(r.over_triage, r.over_triage_low, r.over_triage_high),
            "gates": verdict(r), "test\nloss": figure(r.test_loss), "trained\nin": _trained_in(r),
        }
        for r in rows_of(frame)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _trained_in(r: Any) -> str:
    return "-" if pd.isna(r.train_seconds) else clock(r.train_seconds)
